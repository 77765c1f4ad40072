"""Clients and workers that were disconnected together don't come back together: their times are spread evenly."""

import asyncio
import contextlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.broker.clock import TickClock
from gateway.fanout.ages import Ages
from gateway.fanout.encodings import Encodings
from gateway.fanout.subscriber import Subscriber
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.metrics import Metrics
from gateway.server.drain import drain
from gateway.settings import Settings
from gateway.web.transient import turn_away
from testing.transient import transient
from tests.unit.entrance import Entrance, StillLoop, idle, run

_COUNT = 1000
_NOT_USED: Any = None


@pytest.fixture(autouse=True)
def _same_every_time() -> Iterator[None]:
    state = random.getstate()
    random.seed(1)
    yield
    random.setstate(state)


def _assert_even(values: Sequence[float], low: float, high: float) -> None:
    """Values come from a uniform distribution: the largest distance of both is the Kolmogorov-Smirnov statistic."""
    count = len(values)
    assert low <= min(values) <= max(values) <= high
    places = [(value - low) / (high - low) for value in sorted(values)]
    distance = max(abs(place - number / count) for number, place in enumerate(places))
    assert distance < 1.63 / count**0.5, f"{distance}: one in a hundred even ones is as uneven"


def _retries(written: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"^retry: (\d+)$", written, re.MULTILINE)]


def test_who_is_turned_away() -> None:
    answers = [bytes(turn_away("full", None, 10, Metrics(), False).body).decode() for _ in range(_COUNT)]
    _assert_even([transient(answer).retry for answer in answers], 5_000, 10_000)


def test_who_begins_and_who_is_ended() -> None:
    async def play() -> None:
        entrance = Entrance(retry_min=2, retry_max=7)
        streams = [entrance.enter("a") for _ in range(_COUNT)]
        await idle()
        entrance.open("a")
        await idle()
        _assert_even([_retries(stream.socket.written)[0] for stream in streams], 2_000, 7_000)
        for stream in streams:
            entrance.admission.close(stream.subscriber, "drain", "worker_shutdown")
        _assert_even([_retries(stream.socket.written)[1] for stream in streams], 2_000, 7_000)

    run(play)


def test_who_has_lived_long_enough() -> None:
    now = 0.0
    ages = Ages(1000, lambda: now)
    encoding = Encodings(0).get(chunked=False, named=False)
    for _ in range(_COUNT):
        ages.add(Subscriber((), encoding))
    lifetimes: list[float] = []
    for second in range(1200):
        now = float(second)
        lifetimes += [second] * len(ages.due())
    assert len(lifetimes) == _COUNT
    _assert_even(lifetimes, 900, 1100)


class _Streams:
    """Those of a worker that shuts down."""

    def __init__(self, count: int) -> None:
        self._open = list(range(count))
        self.ended: list[tuple[int, float]] = []

    def drain(self) -> list[int]:
        return list(self._open)

    def close(self, stream: int, reason: str, told: str) -> None:
        assert (reason, told) == ("drain", "worker_shutdown")
        self.ended.append((stream, asyncio.get_running_loop().time()))


@pytest.mark.parametrize("hurry", [False, True])
def test_who_is_disconnected_by_a_worker_that_shuts_down(monkeypatch: pytest.MonkeyPatch, hurry: bool) -> None:
    async def pass_time(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        loop.now += seconds

    async def play() -> None:
        streams: Any = _Streams(_COUNT)
        with monkeypatch.context() as patch:
            patch.setattr("asyncio.sleep", pass_time)
            await drain(streams, Settings(drain_window=10), lambda: hurry and loop_time() >= 4)
        places = [place for place, _ in streams.ended]
        assert sorted(places) == list(range(_COUNT))
        assert abs(sum(places[: _COUNT // 2]) * 4 / _COUNT**2 - 1) < 0.1, "not those first who came first"
        times = [time for _, time in streams.ended]
        if hurry:
            assert sum(time < 4 for time in times) == pytest.approx(0.4 * _COUNT, rel=0.05)
            assert max(times) < 4.2
        else:
            _assert_even(times, 0, 10.1)

    def loop_time() -> float:
        return asyncio.get_running_loop().time()

    run(play)


def test_workers_that_try_to_reach_redis_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        pauses.append((low, high))
        if len(pauses) == 10:
            raise asyncio.CancelledError
        return 0.0

    async def play() -> None:
        gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1", redis_backoff_max=2))
        with monkeypatch.context() as patch, contextlib.suppress(asyncio.CancelledError):
            patch.setattr("gateway.broker.link.random.uniform", uniform)
            await gateway.link.run()
        await gateway.broker.close()

    asyncio.run(play())
    longest = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2]
    assert [high for _, high in pauses] == pytest.approx(longest)
    assert [low for low, _ in pauses] == pytest.approx([pause / 2 for pause in longest])


def test_workers_that_have_heard_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them would ask for one at the same time."""

    async def play() -> None:
        listening = Listening(History(Settings(), lambda: 0.0))
        clock = TickClock(_NOT_USED, _NOT_USED, listening, b"ticks", b"own", 10.0, Metrics(), lambda _: None)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        waited = []
        for _ in range(200):
            began = loop.now
            waiting = asyncio.create_task(clock._until_needed())
            await asyncio.sleep(0)
            while not waiting.done():
                loop.now += 0.01
                await asyncio.sleep(0)
            waited.append(loop.now - began)
        _assert_even(waited, 9.99, 12.05)

    run(play)
