"""Streams whose grant ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.fanout.encodings import Encodings
from gateway.fanout.expiries import Expiries
from gateway.fanout.subscriber import Subscriber
from testing.waiting import until

pytestmark = pytest.mark.anyio

ENCODING = Encodings(0).get(chunked=False, named=False, gzip=False)
NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


class Ends:
    """What was said of which stream, in order."""

    def __init__(self, notice: float = 30.0) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, Subscriber]] = []
        self.can_be_told = True
        self.expiries = Expiries(notice, self.clock, self._tell, self._end)

    def _tell(self, subscriber: Subscriber, at: float) -> bool:
        self.said.append((f"{at - NOW:g}" if self.can_be_told else "too early", subscriber))
        return self.can_be_told

    def _end(self, subscriber: Subscriber) -> None:
        self.said.append(("end", subscriber))
        subscriber.closed = "expired"
        self.expiries.discard(subscriber)

    def add(self, after: float) -> Subscriber:
        subscriber = Subscriber((), ENCODING)
        self.expiries.add(subscriber, NOW + after)
        return subscriber

    def pass_to(self, after: float) -> None:
        """The clock moves, and something makes the task look at it."""
        self.clock.at = NOW + after
        self.expiries._sooner.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.expiries.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_stream_is_told_and_then_ended() -> None:
    ends = Ends()
    async with ends.running():
        one, other = ends.add(100), ends.add(60)
        ends.pass_to(29.9)
        await asyncio.sleep(0.01)
        assert ends.said == []
        ends.pass_to(30)
        await until(lambda: ends.said == [("60", other)], "the first is told")
        ends.pass_to(60)
        await until(lambda: ends.said[1:] == [("end", other)], "it ends")
        ends.pass_to(100)
        await until(lambda: ends.said[2:] == [("100", one), ("end", one)], "the other, too, in order")
    assert len(ends.expiries) == 0


async def test_without_notice_nobody_is_told() -> None:
    ends = Ends(notice=0.0)
    async with ends.running():
        one = ends.add(10)
        ends.pass_to(10)
        await until(lambda: ends.said == [("end", one)], "it ends")


async def test_who_begins_within_the_notice_is_told_at_once() -> None:
    ends = Ends()
    async with ends.running():
        one = ends.add(5)
        await until(lambda: ends.said == [("5", one)], "it is told")


async def test_who_cannot_be_told_yet_is_told_later() -> None:
    ends = Ends()
    ends.can_be_told = False
    async with ends.running():
        one = ends.add(20)
        await until(lambda: ends.said == [("too early", one)], "it is tried")
        ends.pass_to(0.4)
        await asyncio.sleep(0.01)
        assert len(ends.said) == 1
        ends.can_be_told = True
        ends.pass_to(0.5)
        await until(lambda: ends.said[1:] == [("20", one)], "it is told")
        ends.pass_to(20)
        await until(lambda: ends.said[2:] == [("end", one)], "and ends")


async def test_a_sooner_end_is_not_waited_out() -> None:
    """The task sleeps until the first end that it knows of."""
    ends = Ends(notice=0.0)
    async with ends.running():
        ends.add(1000)
        await asyncio.sleep(0)
        one = ends.add(-1)
        await until(lambda: ends.said == [("end", one)], "it ends")


async def test_who_has_left_is_neither_told_nor_ended() -> None:
    ends = Ends()
    async with ends.running():
        gone, closed, stays = ends.add(10), Subscriber((), ENCODING), ends.add(40)
        ends.expiries.discard(gone)
        closed.closed = "client"
        ends.expiries.add(closed, NOW)
        ends.pass_to(40)
        await until(lambda: ends.said == [("40", stays), ("end", stays)], "only who is there")


async def test_many_ends_leave_room_for_other_work() -> None:
    """Tokens that were made together end together."""
    ends = Ends(notice=0.0)
    async with ends.running():
        for _ in range(1000):
            ends.add(10)
        ends.pass_to(10)
        counts = []
        while len(ends.said) < 1000:
            await asyncio.sleep(0)
            counts.append(len(ends.said))
        assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) <= 100


async def test_what_is_kept_of_streams_that_have_left_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fanout.expiries._STALE", 10)
    ends = Ends()
    for _ in range(1000):
        ends.expiries.discard(ends.add(1000))
    assert len(ends.expiries._times) <= 12
