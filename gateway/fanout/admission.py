"""The one way into a stream: topics open, then what was missed, `gateway.open`, and live from there.

The same for new streams, for clients that come back, and for all streams of a worker that lost its connection to
Redis. What a stream waits for is found out first; then, with nothing awaited in between, its replay is taken from the
rings and it joins. While anybody waits, the rings of its topics keep what comes.
"""

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import orjson

from gateway.fanout.budget import Budget
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encoding
from gateway.fanout.in_band import closing, opened
from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.memory.catch_up import CatchUp, Find, Need, Older, Verify, Wish
from gateway.memory.hole import Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import Known
from gateway.memory.position import ZERO
from gateway.memory.replay import Limits, Replayed
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.ports import Clock, NotCounted, Past, TooManyTopics, Topics
from gateway.settings import Settings

_TRIES = 5
logger = logging.getLogger(__name__)

_SEARCHES_PER_SECOND = 50.0
"""For ids of publishers that are not in the rings: all workers and Redis are asked, so what clients make up must not
cost more than that."""
_REMEMBERED = 64
_RETRIES = 256
"""Different reconnection times: close enough to each other that clients that come back do so evenly."""
_RETRY = 1.0
_AT_ONCE = 100
"""Streams that are joined again in one turn of the event loop."""


class TurnedAway(Exception):
    """A stream can't be had just now, and can later.

    Attributes:
        reason: `draining`, `full`, `busy`, `redis_away`, `behind` or `address_limit`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TopicRefused(Exception):
    """Redis does not let this gateway subscribe to the topic; says why."""


class _Ready(NamedTuple):
    """What a stream begins with."""

    piece: bytes
    events: int
    gaps: tuple[str, ...] = ()
    """The reasons of those that are gaps."""


class Admission:
    """Lets subscribers in.

    Args:
        settings: limits and times.
        members: who listens.
        delivery: hands out what comes.
        topics: told of what is wanted.
        listening: what has been heard.
        flush: has everything delivered that has been counted.
        clock: Redis' clock.
        past: what others know.
        metrics: where replays and gaps are counted.
        monotonic: event loop time.
    """

    def __init__(
        self,
        settings: Settings,
        members: Members,
        delivery: Delivery,
        topics: Topics,
        listening: Listening,
        flush: Callable[[], None],
        clock: Clock,
        past: Past,
        metrics: Metrics,
        monotonic: Callable[[], float],
    ) -> None:
        self.deliver = delivery.deliver
        self.commit = delivery.commit
        self.ticked = delivery.ticked
        self._settings = settings
        self._members = members
        self._delivery = delivery
        self._topics = topics
        self._listening = listening
        self._flush = flush
        self._clock = clock
        self._past = past
        self._metrics = metrics
        self._monotonic = monotonic
        self._limits = Limits(settings.replay_events, settings.replay_bytes)
        self._budget = Budget(settings.accept_rate, monotonic)
        self._searches = Budget(_SEARCHES_PER_SECOND, monotonic)
        self._waiting: dict[Subscriber, tuple[asyncio.Future[None], float]] = {}
        self._waiting_for: dict[Topic, dict[Subscriber, None]] = {}
        # Streams that have begun and wait for the connection to Redis, by what they have in common.
        self._interrupted: dict[tuple[tuple[Topic, ...], Encoding, str], list[Subscriber]] = {}
        self._returning: asyncio.Task[None] | None = None
        self._opened_meanwhile = False
        self._opens: dict[tuple[tuple[Topic, ...], Encoding], tuple[str, dict[int, bytes]]] = {}
        self._remembered: OrderedDict[tuple[object, ...], _Ready] = OrderedDict()
        members.on_leave.append(self._wake)

    # -- new streams

    def register(self, channels: Iterable[str], patterns: Iterable[str], encoding: Encoding) -> Subscriber:
        """A subscriber: Redis is asked for what it wants. It gets nothing until it has begun.

        Raises:
            TurnedAway: draining, or a limit of this worker is reached.
        """
        if self._members.draining:
            raise TurnedAway("draining")
        if self._members.full:
            raise TurnedAway("full")
        if not self._budget.take():
            raise TurnedAway("busy")
        topics: list[Topic] = []
        try:
            topics.extend([self._topics.want(name, False) for name in channels])
            topics.extend([self._topics.want(pattern, True) for pattern in patterns])
        except TooManyTopics:
            for topic in topics:
                if self._members.audience(topic) is None:
                    self._topics.release(topic)
            raise TurnedAway("full") from None
        return self._members.register(topics, encoding)

    def begin_now(self, subscriber: Subscriber, wish: Wish) -> bytes | None:
        """What the stream begins with, as almost always it can be said at once; the subscriber has joined.

        None: `begin` has to be awaited.
        """
        if not all(topic.heard for topic in subscriber.topics):
            return None
        if wish.from_now:
            self._flush()
            return self._admitted(subscriber, _NOTHING)
        state = CatchUp(subscriber.topics, wish)
        step = self._step(state, subscriber.encoding)
        if not isinstance(step, _Ready):
            return None
        return self._admitted(subscriber, step, state.included)

    async def begin(self, subscriber: Subscriber, wish: Wish) -> bytes:
        """The same, after everything that has to be waited for.

        Raises:
            TurnedAway: not within the setting `subscribe_timeout`, or it has left before; the subscriber is gone.
            TopicRefused: Redis refuses one of its topics; the subscriber is gone.
        """
        deadline = self._monotonic() + self._settings.subscribe_timeout
        if wish.from_now:
            try:
                await self._until_open(subscriber, deadline)
            except asyncio.CancelledError:
                self._members.leave(subscriber, "client")
                raise
            self._flush()
            return self._admitted(subscriber, _NOTHING)
        state = CatchUp(subscriber.topics, wish)
        self._pin(state.topics)
        try:
            while True:
                await self._until_open(subscriber, deadline)
                step = self._step(state, subscriber.encoding)
                if isinstance(step, _Ready):
                    return self._admitted(subscriber, step, state.included)
                if subscriber.closed is not None or self._monotonic() >= deadline:
                    reason = "draining" if self._members.draining else "behind"
                    self._members.leave(subscriber, reason)
                    raise TurnedAway(reason)
                async with asyncio.timeout_at(deadline + self._settings.subscribe_timeout):
                    await self._satisfy([(state, step)])
        except TimeoutError:
            self._members.leave(subscriber, "behind")
            raise TurnedAway("behind") from None
        except asyncio.CancelledError:
            self._members.leave(subscriber, "client")
            raise
        finally:
            self._unpin(state.topics)

    def close(self, subscriber: Subscriber, reason: str, told: str) -> None:
        """End a stream cleanly, whose client is to reconnect with the id that it gets here.

        Args:
            reason: for the metric.
            told: the reason in `gateway.closing`.
        """
        left_at = subscriber.left_at
        if left_at is None:
            self._flush()
            self._delivery.settle(subscriber.topics)
            left_at = self._id_of(subscriber)
        retry = random.uniform(self._settings.retry_min, self._settings.retry_max)
        piece = subscriber.encoding.encode([Replayed("", closing(told, retry), left_at)])
        self._members.end(subscriber, reason, piece)

    # -- what comes from Redis

    def opened(self, topics: Sequence[Topic]) -> None:
        """Everything published on them from now on is heard."""
        for topic in topics:
            for subscriber in self._waiting_for.pop(topic, ()):
                self._wake(subscriber)
        self._return()

    def refused(self, topic: Topic) -> None:
        """Redis does not let us subscribe to the topic: nobody may go on as if something could still come."""
        for subscriber in self._waiting_for.pop(topic, ()):
            self._wake(subscriber)
        for subscriber in self._members.of(topic):
            if subscriber.sink is not None:
                self.close(subscriber, "refused", "redis_denied")

    def lost(self) -> None:
        """The connection is lost: every stream goes on from where it is, as if its client had come back."""
        for topics in {subscriber.topics for subscriber in self._members.all()}:
            self._delivery.settle(topics)
        for subscriber in self._members.all():
            if subscriber.left_at is None and self._has_joined(subscriber):
                left_at = self._id_of(subscriber)
                self._members.part(subscriber, left_at)
                key = (subscriber.topics, subscriber.encoding, left_at)
                self._interrupted.setdefault(key, []).append(subscriber)
        if self._returning is not None:
            self._returning.cancel()
            self._returning = None

    def sweep(self) -> None:
        """Wake who has waited long enough, and forget; to be called every second or so."""
        self._remembered.clear()
        now_ = self._monotonic()
        for subscriber in [each for each, (_, deadline) in self._waiting.items() if deadline <= now_]:
            self._wake(subscriber)

    def drain(self) -> list[Subscriber]:
        """Take nobody any more, and turn those away who are still waiting.

        Returns:
            Those whose streams are to be ended.
        """
        self._members.draining = True
        for subscriber in list(self._waiting):
            self._wake(subscriber)
        return self._members.all()

    # -- waiting

    async def _until_open(self, subscriber: Subscriber, deadline: float) -> None:
        # A connection lost meanwhile takes confirmations back, hence the loop.
        while topic := next((topic for topic in subscriber.topics if not topic.heard), None):
            if refusal := next((topic.refusal for topic in subscriber.topics if topic.state is State.REFUSED), None):
                self._members.leave(subscriber, "refused")
                raise TopicRefused(refusal)
            if self._members.draining or subscriber.closed is not None or self._monotonic() >= deadline:
                reason = "draining" if self._members.draining else "redis_away"
                self._members.leave(subscriber, reason)
                raise TurnedAway(reason)
            future = asyncio.get_running_loop().create_future()
            # No timer for each: thousands may wait for the same answer of Redis.
            self._waiting[subscriber] = (future, deadline)
            self._waiting_for.setdefault(topic, {})[subscriber] = None
            try:
                await future
            finally:
                self._waiting.pop(subscriber, None)
                if others := self._waiting_for.get(topic):
                    others.pop(subscriber, None)
                    if not others:
                        del self._waiting_for[topic]

    def _wake(self, subscriber: Subscriber) -> None:
        waiting = self._waiting.get(subscriber)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(None)

    def _pin(self, topics: Iterable[Topic]) -> None:
        for topic in topics:
            topic.ring.pins += 1

    def _unpin(self, topics: Iterable[Topic]) -> None:
        for topic in topics:
            topic.ring.pins -= 1
            if topic.ring.since is not None:
                topic.ring.trim()

    async def _find(self, state: CatchUp, holes: list[tuple[Topic, Hole]]) -> None:
        found = await asyncio.gather(*[self._past.find(topic, hole) for topic, hole in holes], return_exceptions=True)
        for (topic, hole), kept in zip(holes, found, strict=True):
            if not isinstance(kept, BaseException):  # else it is asked for again, a few times
                state.found.setdefault(topic, []).append(Known(hole.position, hole.end, kept))

    async def _older(self, state: CatchUp, need: Older) -> None:
        listening = self._listening
        for topic in state.topics:
            end = topic.position(listening.era) if listening.era is not None else ZERO
            if need.previous is not None:
                entries = await self._past.after_previous(topic, *need.previous, end)
            else:
                entries = await self._past.last(topic, need.count, end)
            state.older[topic] = (entries, end)

    # -- beginning

    def _admitted(self, subscriber: Subscriber, step: _Ready, included: str = "") -> bytes:
        self._count(step)
        if included:
            self._members.include(subscriber, included)
        self._members.join(subscriber)
        open_ = self._open(subscriber.topics, subscriber.encoding, included)
        return subscriber.encoding.header + step.piece + open_

    def _id_of(self, subscriber: Subscriber) -> str:
        return self._listening.id_of(subscriber.topics, self._members.included.get(subscriber, ""))

    def _count(self, step: _Ready) -> None:
        if step.events:
            self._metrics.replayed += step.events - len(step.gaps)
            self._metrics.gaps.update(step.gaps)

    def _open(self, topics: tuple[Topic, ...], encoding: Encoding, included: str = "") -> bytes:
        """`gateway.open`: from here on the client has an id, whatever follows."""
        id_ = self._listening.id_of(topics, included)
        key = (topics, encoding)
        known = self._opens.get(key)
        if known is None or known[0] != id_:
            if len(self._opens) >= _REMEMBERED:
                self._opens.clear()
            known = self._opens[key] = (id_, {})
        # When all come at once, only so many different pieces are made.
        number = int(random.random() * _RETRIES)
        piece = known[1].get(number)
        if piece is None:
            settings = self._settings
            retry = settings.retry_min + (settings.retry_max - settings.retry_min) * number / _RETRIES
            piece = known[1][number] = encoding.encode([Replayed("", opened(topics, retry), id_)])
        return piece

    def _step(self, state: CatchUp, encoding: Encoding) -> _Ready | Need:
        """What a stream begins with, or what is missing to say it. Whoever gets the former has to join at once."""
        self._flush()
        key = (state.topics, state.wish.last_event_id, state.wish.history, state.wish.new, encoding)
        signature = (*key, self._listening.id_of(state.topics), self._listening.epoch)
        remembered = self._remembered.get(signature)
        if remembered is None:
            replayed = state.attempt(self._listening, self._limits, self._searches.take)
            if not isinstance(replayed, list):
                return replayed
            piece = encoding.encode(replayed) if replayed else b""
            gaps = tuple([orjson.loads(each.event.data)["reason"] for each in replayed if each.id is None])
            remembered = self._remembered[signature] = _Ready(piece, len(replayed), gaps)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return remembered

    # -- streams that have begun

    def _has_joined(self, subscriber: Subscriber) -> bool:
        audience = self._members.audience(subscriber.topics[0])
        if audience is None:
            return False
        groups = audience.joint if len(subscriber.topics) > 1 else audience.single
        return subscriber in groups.get(subscriber.encoding, ())

    def _return(self) -> None:
        self._opened_meanwhile = True
        if self._interrupted and self._returning is None:
            self._opened_meanwhile = False
            self._returning = asyncio.create_task(self._let_return())
            self._returning.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        if self._returning is task:
            self._returning = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:  # a fault of ours must not leave clients waiting forever
            logger.error("streams could not go on; trying again", exc_info=error)
            asyncio.get_running_loop().call_later(_RETRY, self._return)
        elif self._opened_meanwhile:
            self._return()

    async def _let_return(self) -> None:
        """Let the streams in again whose topics are open, until none is left for which that can be done now."""
        states: dict[tuple[tuple[Topic, ...], Encoding, str], CatchUp] = {}
        try:
            while True:
                needs: list[tuple[CatchUp, Need]] = []
                served = 0
                for key in list(self._interrupted):
                    topics, encoding, left_at = key
                    if not all(topic.heard for topic in topics):
                        continue
                    state = states.get(key)
                    if state is None:
                        state = states[key] = CatchUp(topics, Wish(left_at))
                        self._pin(topics)
                    waiting = deque(self._interrupted[key])
                    while waiting:
                        # Again for each portion: events may have come since the one before.
                        step = self._step(state, encoding)
                        if not isinstance(step, _Ready):
                            needs.append((state, step))
                            break
                        piece = step.piece + self._open(topics, encoding, state.included)
                        for _ in range(min(_AT_ONCE, len(waiting))):
                            subscriber = waiting.popleft()
                            served += 1
                            if subscriber.closed is None:
                                self._count(step)
                                self._delivery.send(subscriber, piece, step.events)
                                self._members.join(subscriber)
                        self._interrupted[key] = list(waiting)
                        if served >= _AT_ONCE:
                            served = 0
                            await asyncio.sleep(0)
                    if not waiting:
                        self._interrupted.pop(key, None)
                        self._unpin(topics)
                        del states[key]
                if not needs:
                    return
                await self._satisfy(needs)
        finally:
            for topics, _, _ in states:
                self._unpin(topics)

    async def _satisfy(self, needs: list[tuple[CatchUp, Need]]) -> None:
        """Find out what streams, or groups of them, need to begin, together."""
        epoch = self._listening.epoch
        verifies = [need for _, need in needs if isinstance(need, Verify)]
        if verifies:
            # If Redis refuses to count, nothing can be compared, so nothing is waited for.
            with contextlib.suppress(NotCounted):
                await self._clock.verify(any(need.elsewhere for need in verifies))
        finds = [(state, need.holes) for state, need in needs if isinstance(need, Find)]
        await asyncio.gather(*[self._find(state, holes) for state, holes in finds])
        for state, need in needs:
            state.tries += 1
            if isinstance(need, Verify):
                state.verified = True
            elif isinstance(need, Older):
                await self._older(state, need)
            if epoch != self._listening.epoch:
                state.forget()


_NOTHING = _Ready(b"", 0)
