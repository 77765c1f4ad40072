"""The one way into a stream: topics open, then what was missed, `gateway.open`, and live from there.

The same for new streams, for clients that come back, and for all streams of a worker that lost its connection to
Redis. What a stream waits for is found out first; then, with nothing awaited in between, its replay is taken from the
rings and it joins. While anybody waits, the rings of its topics keep what comes.
"""

import asyncio
import contextlib
import logging
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import orjson

from gateway.fanout.budget import Budget
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encoding
from gateway.fanout.gate import Gate
from gateway.fanout.in_band import closing, opened
from gateway.fanout.members import Members
from gateway.fanout.prepared import Prepared
from gateway.fanout.shared_work import SharedWork
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import TurnedAway
from gateway.fanout.unsent import Piece, Unsent
from gateway.memory.catch_up import CatchUp, Find, Need, Older, Verify, Wish
from gateway.memory.hole import Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import Known
from gateway.memory.position import ZERO
from gateway.memory.replay import Limits, Replay, Replayed
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
_IN_ONE_GO = Limits(1000, 131_072)
"""Of a replay that is made as soon as it is wanted: some 5 ms, and the kernel takes it from the worker at once."""
_PORTION = Limits(100, 65_536)
"""Of a longer one that is encoded in one turn of the event loop: a millisecond, several with gzip."""
_Result = TypeVar("_Result")


class TopicRefused(Exception):
    """Redis does not let this gateway subscribe to the topic; says why."""


class _Ready(NamedTuple):
    """What a stream begins with."""

    piece: bytes
    events: int
    gaps: tuple[str, ...] = ()
    """The reasons of those that are gaps."""


class _Group:
    """Streams that go on alike: what has been found out for them, and what of it is prepared already."""

    def __init__(self, state: CatchUp) -> None:
        self.state = state
        self.before: list[Prepared] = []


class _Long:
    """A stream needs what takes long to prepare: Redis' history, or more events than are encoded in one go."""


_LONG = _Long()


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

    Attributes:
        gate: limits how many long replays are prepared at the same time.
        room: limits how much of them is in memory.
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
        self.gate = Gate(settings.replays_at_once, settings.replays_waiting, settings.subscribe_timeout)
        self.room = Unsent(settings.replay_total_bytes, members.unsent)
        self._preparing: SharedWork[Prepared | str | None] = SharedWork()
        self._turn = asyncio.Lock()
        self._prepared: dict[tuple[object, ...], Prepared] = {}
        # Also those that are in memory because somebody hasn't read them yet: they cost nothing more.
        self._unread: WeakValueDictionary[tuple[object, ...], Prepared] = WeakValueDictionary()
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
        topics, encoding = subscriber.topics, subscriber.encoding
        state = CatchUp(topics, wish)
        before: list[Prepared] = []
        self._pin(topics)
        try:
            while True:
                await self._until_open(subscriber, deadline)
                step = self._step(state, encoding)
                if isinstance(step, _Ready):
                    return self._admitted(subscriber, step, state.included, before)
                if subscriber.closed is not None or self._monotonic() >= deadline or len(before) == _TRIES:
                    raise TurnedAway("draining" if self._members.draining else "behind")
                if not isinstance(step, _Long) and not isinstance(step, Older):
                    async with asyncio.timeout_at(deadline + self._settings.subscribe_timeout):
                        await self._satisfy([(state, step)])
                elif (prepared := await self._unless_left(subscriber, self._prepare(state, encoding))) is not None:
                    async with self._turn:  # hundreds may have waited for it
                        await asyncio.sleep(0)
                    # Now it is where a client is that has had this, and comes back.
                    before.append(prepared)
                    deadline = self._monotonic() + self._settings.subscribe_timeout
                    wish = Wish(prepared.left_at, 0, wish.new)
                    state = CatchUp(topics, wish)
                elif self._members.draining:
                    raise TurnedAway("draining")
                else:
                    state = CatchUp(topics, wish)
        except TurnedAway as refusal:
            self._members.leave(subscriber, refusal.reason)
            raise
        except TimeoutError:
            self._members.leave(subscriber, "behind")
            raise TurnedAway("behind") from None
        except asyncio.CancelledError:
            self._members.leave(subscriber, "client")
            raise
        finally:
            self._unpin(topics)

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
        self._prepared.clear()
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

    async def _unless_left(self, subscriber: Subscriber, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """The result of some work; None if the subscriber has left before, or the worker drains."""
        task = asyncio.create_task(work)
        future = asyncio.get_running_loop().create_future()
        self._waiting[subscriber] = (future, math.inf)
        task.add_done_callback(lambda _: self._wake(subscriber))
        try:
            await future
            return task.result() if task.done() else None
        finally:
            self._waiting.pop(subscriber, None)
            task.cancel()
            task.add_done_callback(_look_at)
            del task  # it would hold its error, and that all this

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
        ends = {topic: topic.position(listening.era) if listening.era is not None else ZERO for topic in state.topics}
        entries, state.cut = await self._past.newest(ends, need.count, need.previous)
        state.older = {topic: (entries[topic], end) for topic, end in ends.items()}

    # -- long replays

    async def _prepare(self, state: CatchUp, encoding: Encoding) -> Prepared | None:
        """What a stream begins with, up to now, if that is long; None if the connection to Redis was lost meanwhile.

        Raises:
            TurnedAway: too many wait for the same, or too much of it is in memory.
        """
        key = self._key(state, encoding)
        if (known := self._unread.get(key)) is not None and self._goes_on(state, known):
            return known
        prepared = await self._preparing.result(key, lambda: self._prepare_at_the_gate(state, encoding))
        if isinstance(prepared, str):
            raise TurnedAway(prepared)
        if prepared is not None and prepared.events:
            self._prepared[key] = self._unread[key] = prepared
        return prepared

    def _key(self, state: CatchUp, encoding: Encoding) -> tuple[object, ...]:
        wish = state.wish
        return state.topics, wish.last_event_id, wish.history, wish.new, encoding, self._listening.epoch

    def _goes_on(self, state: CatchUp, prepared: Prepared) -> bool:
        """Whether the rings hold all that came since: nobody has pinned them."""
        if not all(topic.heard for topic in state.topics):
            return False
        self._flush()
        following = CatchUp(state.topics, Wish(prepared.left_at, 0, state.wish.new))
        return isinstance(following.plan(self._listening, self._limits, self._searches.take), Replay)

    async def _prepare_at_the_gate(self, state: CatchUp, encoding: Encoding) -> Prepared | str | None:
        """As `_prepare`; the reason if it is refused: an error would keep everything that was read so far."""
        try:
            async with self.gate.enter():
                self._pin(state.topics)
                try:
                    return await self._read_and_encoded(state, encoding)
                finally:
                    self._unpin(state.topics)
        except TurnedAway as refusal:
            return refusal.reason

    async def _read_and_encoded(self, state: CatchUp, encoding: Encoding) -> Prepared | None:
        while all(topic.heard for topic in state.topics):
            self._flush()
            step = state.plan(self._listening, self._limits, self._searches.take)
            if isinstance(step, Replay):
                left_at = self._listening.id_of(state.topics, state.included)
                return await self._encoded(step, left_at, encoding)
            if isinstance(step, Older) and not self._is_short(step, state):
                self._make_room()
            await self._satisfy([(state, step)])
        return None

    def _make_room(self) -> None:
        """Room for another piece.

        Those that have begun keep theirs: they get on with every piece, and would only come back for the rest. Those
        that don't get on are ended after `stall_timeout`.

        Raises:
            TurnedAway: there is none.
        """
        if self.room.full:
            self._prepared.clear()
        if self.room.full:
            raise TurnedAway("busy")

    def _is_short(self, need: Older, state: CatchUp) -> bool:
        return 0 < need.count * len(state.topics) <= _IN_ONE_GO.events

    async def _encoded(self, replay: Replay, left_at: str, encoding: Encoding) -> Prepared:
        """Encode a replay in portions: meanwhile the others have their turns."""
        prepared = Prepared(self.room, left_at)
        portion: list[Replayed] = []
        size = 0
        for each in replay:
            portion.append(each)
            size += each.event.size + len(each.id or "")
            if len(portion) < _PORTION.events and size < _PORTION.bytes:
                continue
            self._add_portion(prepared, portion, encoding)
            portion, size = [], 0
            await asyncio.sleep(0)
        if portion:
            self._add_portion(prepared, portion, encoding)
        return prepared

    def _add_portion(self, prepared: Prepared, portion: list[Replayed], encoding: Encoding) -> None:
        self._make_room()
        prepared.add(encoding.encode(portion))
        prepared.events += len(portion)
        prepared.gaps += _gap_reasons(portion)

    # -- beginning

    def _admitted(
        self, subscriber: Subscriber, step: _Ready, included: str = "", before: Sequence[Prepared] = ()
    ) -> bytes:
        for each in before:
            self._count(each)
        self._count(step)
        if included:
            self._members.include(subscriber, included)
        open_ = self._open(subscriber.topics, subscriber.encoding, included)
        if before and subscriber.closed is None:
            pieces = [each.pieces() for each in before]
            self._delivery.begin_with(subscriber, chain(*pieces, [Piece(self.room, step.piece + open_)]))
        self._members.join(subscriber)
        return subscriber.encoding.header if before else subscriber.encoding.header + step.piece + open_

    def _id_of(self, subscriber: Subscriber) -> str:
        return self._listening.id_of(subscriber.topics, self._members.included.get(subscriber, ""))

    def _count(self, step: _Ready | Prepared) -> None:
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

    def _step(self, state: CatchUp, encoding: Encoding) -> _Ready | Need | _Long:
        """What a stream begins with, or what is missing to say it. Whoever gets the former has to join at once."""
        self._flush()
        key = self._key(state, encoding)
        if key in self._unread or key in self._preparing:
            return _LONG
        signature = (*key, self._listening.id_of(state.topics))
        remembered = self._remembered.get(signature)
        if remembered is None:
            replay = state.plan(self._listening, self._limits, self._searches.take)
            if not isinstance(replay, Replay):
                return replay
            if not replay.is_within(_IN_ONE_GO):
                return _LONG
            remembered = self._remembered[signature] = self._ready(replay, encoding)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return remembered

    def _ready(self, replay: Replay, encoding: Encoding) -> _Ready:
        replayed = list(replay)
        piece = encoding.encode(replayed) if replayed else b""
        return _Ready(piece, len(replayed), tuple(_gap_reasons(replayed)))

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
        groups: dict[tuple[tuple[Topic, ...], Encoding, str], _Group] = {}
        try:
            while True:
                needs: list[tuple[CatchUp, Need]] = []
                long_ones: list[tuple[tuple[Topic, ...], Encoding, str]] = []
                served = 0
                for key in list(self._interrupted):
                    topics, encoding, left_at = key
                    if not all(topic.heard for topic in topics):
                        continue
                    group = groups.get(key)
                    if group is None:
                        group = groups[key] = _Group(CatchUp(topics, Wish(left_at)))
                        self._pin(topics)
                    state = group.state
                    waiting = deque(self._interrupted[key])
                    while waiting:
                        # Again for each portion: events may have come since the one before.
                        step = self._step(state, encoding)
                        if isinstance(step, _Long | Older):
                            long_ones.append(key)
                            break
                        if not isinstance(step, _Ready):
                            needs.append((state, step))
                            break
                        open_ = self._open(topics, encoding, state.included)
                        # One for all of the group: it waits where these streams' other events wait.
                        before = [piece.data for piece in chain(*[each.pieces() for each in group.before])]
                        piece = b"".join([*before, step.piece, open_])
                        parts: list[_Ready | Prepared] = [*group.before, step]
                        some = [waiting.popleft() for _ in range(min(_AT_ONCE, len(waiting)))]
                        served += len(some)
                        some = [subscriber for subscriber in some if subscriber.closed is None]
                        for part in parts * len(some):
                            self._count(part)
                        self._delivery.send(some, piece, sum(part.events for part in parts))
                        for subscriber in some:
                            self._members.join(subscriber)
                        self._interrupted[key] = list(waiting)
                        if served >= _AT_ONCE:
                            served = 0
                            await asyncio.sleep(0)
                    if not waiting:
                        self._interrupted.pop(key, None)
                        self._unpin(topics)
                        del groups[key]
                if not needs and not long_ones:
                    return
                if needs:
                    await self._satisfy(needs)
                for key in long_ones:
                    await self._prepare_group(key, groups[key])
        finally:
            for topics, _, _ in groups:
                self._unpin(topics)

    async def _prepare_group(self, key: tuple[tuple[Topic, ...], Encoding, str], group: "_Group") -> None:
        topics, encoding, left_at = key
        try:
            prepared = await self._prepare(group.state, encoding)
        except TurnedAway as refusal:
            for subscriber in self._interrupted.pop(key, ()):
                if subscriber.closed is None:
                    self.close(subscriber, refusal.reason, refusal.reason)
            return
        if prepared is not None:
            group.before.append(prepared)
            left_at = prepared.left_at
        elif group.before:
            left_at = group.before[-1].left_at
        group.state = CatchUp(topics, Wish(left_at))

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


def _look_at(task: asyncio.Task[Any]) -> None:
    """The loop would complain that nobody looked."""
    if not task.cancelled():
        task.exception()


def _gap_reasons(replayed: Iterable[Replayed]) -> list[str]:
    return [orjson.loads(each.event.data)["reason"] for each in replayed if each.id is None]
