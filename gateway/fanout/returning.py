"""Streams that go on after the connection to Redis was lost, as if their clients had come back."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

from gateway.fanout.beginning import Beginning, Ready
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encoding
from gateway.fanout.endings import Endings
from gateway.fanout.inquiry import Inquiry
from gateway.fanout.long_replays import LongReplays
from gateway.fanout.members import Members
from gateway.fanout.prepared import Prepared
from gateway.fanout.replays import Replays
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import TurnedAway
from gateway.memory.catch_up import CatchUp, Find, Verify, Wish
from gateway.memory.topic import Topic, pin, unpin

logger = logging.getLogger(__name__)

_AT_ONCE = 100
"""Streams that are joined again in one turn of the event loop."""
_RETRY = 1.0
_PATIENCE = 5.0
"""Seconds for which Redis is asked which channels are over."""

_Key: TypeAlias = tuple[tuple[Topic, ...], Encoding, str, str]
"""What streams have in common that go on alike: also the id from which they do, and the proof in it."""


class Returning:
    """Lets interrupted streams go on, those that are alike together.

    Args:
        members: who listens.
        delivery: hands out what they have missed.
        replays: makes it.
        long: likewise, where that takes long.
        inquiry: finds out what is missing.
        endings: know which channels are over.
        close: ends a stream whose client is to come back; see `Admission.close`.
    """

    def __init__(
        self,
        members: Members,
        delivery: Delivery,
        replays: Replays,
        long: LongReplays,
        inquiry: Inquiry,
        endings: Endings,
        close: Callable[[Subscriber, str, str], None],
    ) -> None:
        self._members = members
        self._delivery = delivery
        self._replays = replays
        self._long = long
        self._inquiry = inquiry
        self._endings = endings
        self._close = close
        self._interrupted: dict[_Key, list[Subscriber]] = {}
        self._task: asyncio.Task[None] | None = None
        self._opened_meanwhile = False
        self._served = 0

    def interrupt(self, subscriber: Subscriber, left_at: str) -> None:
        """It gets nothing until it goes on from that id."""
        self._members.part(subscriber, left_at)
        key = subscriber.topics, subscriber.encoding, left_at, subscriber.suffix.proof
        self._interrupted.setdefault(key, []).append(subscriber)

    def stop(self) -> None:
        """The connection is lost."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def go_on(self) -> None:
        """Topics have opened."""
        self._opened_meanwhile = True
        if self._interrupted and self._task is None:
            self._opened_meanwhile = False
            self._task = asyncio.create_task(self._let_return())
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:  # a fault of ours must not leave clients waiting forever
            logger.error("streams could not go on; trying again", exc_info=error)
            asyncio.get_running_loop().call_later(_RETRY, self.go_on)
        elif self._opened_meanwhile:
            self.go_on()

    async def _let_return(self) -> None:
        """Let the streams go on whose topics are open, until none is left for which that can be done now."""
        beginnings: dict[_Key, Beginning] = {}
        try:
            while True:
                needs: list[tuple[CatchUp, Verify | Find]] = []
                long_ones: list[_Key] = []
                await self._know_ends()
                for key in list(self._interrupted):
                    topics, encoding, left_at, proof = key
                    if not all(topic.heard and topic.over is not None for topic in topics):
                        continue  # those that have opened meanwhile are next
                    beginning = beginnings.get(key)
                    if beginning is None:
                        beginning = beginnings[key] = Beginning(topics, encoding, Wish(left_at, proof=proof))
                        pin(topics)
                    step = await self._serve(key, beginning)
                    if step is None:
                        long_ones.append(key)
                    elif not isinstance(step, Ready):
                        needs.append((beginning.state, step))
                    else:
                        del beginnings[key]
                        unpin(topics)
                if not needs and not long_ones:
                    return
                if needs:
                    await self._inquiry.satisfy(needs)
                for key in long_ones:
                    await self._prepare(key, beginnings[key])
        finally:
            for topics, *_ in beginnings:
                unpin(topics)

    async def _know_ends(self) -> None:
        """Find out which channels have ended meanwhile; streams of which that can't be told have to come back."""
        heard = {topic: None for topics, *_ in self._interrupted for topic in topics if topic.heard}
        try:
            await self._endings.know(list(heard), asyncio.get_running_loop().time() + _PATIENCE)
        except TurnedAway as refusal:
            for key in list(self._interrupted):
                if any(topic.over is None for topic in key[0] if topic.heard):
                    self._close_all(key, refusal.reason)

    async def _serve(self, key: _Key, beginning: Beginning) -> Ready | Verify | Find | None:
        """Let those with that key go on; returns a `Ready` if all do, else what is missing (see `Replays.step`)."""
        while True:
            # Again for each portion: events may have come since the one before.
            step = self._replays.step(beginning)
            if not isinstance(step, Ready):
                return step
            waiting = self._interrupted[key]
            some, rest = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            self._send(some, beginning, step)
            if rest:
                self._interrupted[key] = rest
            else:
                del self._interrupted[key]
            self._served += len(some)
            if self._served >= _AT_ONCE:
                self._served = 0
                await asyncio.sleep(0)
            if not rest:
                return step

    def _send(self, subscribers: list[Subscriber], beginning: Beginning, step: Ready) -> None:
        open_ = self._replays.opened(beginning.topics, beginning.encoding, beginning.state.suffix)
        over = self._replays.ended(beginning, step, beginning.state.suffix)
        # One piece for all: it waits where these streams' other events wait.
        piece = b"".join([*[each.data for each in beginning.pieces()], step.piece, open_, over])
        parts: list[Ready | Prepared] = [*beginning.before, step]
        still_there = [subscriber for subscriber in subscribers if subscriber.closed is None]
        for part in parts:
            self._replays.count(part, len(still_there))
        self._delivery.send(still_there, piece, sum(part.events for part in parts))
        for subscriber in still_there:
            self._members.join(subscriber)
            self._endings.look_at(subscriber)

    async def _prepare(self, key: _Key, beginning: Beginning) -> None:
        try:
            beginning.follow(await self._long.prepare(beginning))
        except TurnedAway as refusal:
            self._close_all(key, refusal.reason)

    def _close_all(self, key: _Key, reason: str) -> None:
        for subscriber in self._interrupted.pop(key, ()):
            if subscriber.closed is None:
                self._close(subscriber, reason, reason)
