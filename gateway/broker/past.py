"""What this worker doesn't know of the past: the other workers are asked, then Redis."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway import ports
from gateway.broker.library import BEGINNING, Found, Kept, Library, Newest, Place, Range, Wanted
from gateway.broker.peers import Peers
from gateway.broker.topics import WantedTopics
from gateway.broker.wire import MAX_QUESTIONS, Question
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.durables import fill, reason_of
from gateway.memory.entry import Entry
from gateway.memory.entry import Kept as Remembered
from gateway.memory.event import Undeliverable, parse
from gateway.memory.hole import LOST, Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import merge
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import Interrupted
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_AT_A_TIME = 4
"""Batches of questions under way; the others wait, and become fewer and larger."""
_PATIENCE = 5.0
_AGAIN = 0.3
"""Seconds: how long, and how often, it is tried to ask Redis. A gap that need not be is worse than a late answer."""
_MOST_READ = 2
"""Replays' worth of durable messages read for what is missing on so many channels; the rest is `too_many`."""
_CHANNELS_PER_READ = 100
"""Redis does nothing else meanwhile."""
_EVENTS_PER_READ = 250
_BYTES_PER_READ = 262_144
"""Of a portion of a long history: a few milliseconds for Redis, and for this worker."""
_MAX_PATTERN_CHANNELS = 1000
"""Of all patterns of a stream."""
_WITNESSES = 64


class PastOfOthers:
    """Answers questions about what is missing on a topic; identical ones are asked once, and many together."""

    def __init__(
        self,
        settings: Settings,
        listening: Listening,
        topics: WantedTopics,
        peers: Peers,
        library: Library,
        durable_channels: DurableChannels,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._prefix = settings.channel_prefix
        self._listening = listening
        self._topics = topics
        self._peers = peers
        self._library = library
        self._durable_channels = durable_channels
        self._metrics = metrics
        self._shared: dict[tuple[Topic, Hole], asyncio.Future[list[Remembered]]] = {}
        self._waiting: list[tuple[Topic, Hole]] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._witnesses: dict[tuple[Position, Position], asyncio.Future[bool]] = {}

    async def find(self, topic: Topic, hole: Hole) -> list[Remembered]:
        key = (topic, hole)
        future = self._shared.get(key)
        if future is None:
            future = self._shared[key] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: self._forget(key, done))
            self._waiting.append(key)
            if len(self._batches) < _AT_A_TIME:
                self._start_batch()
        # Shared, so that one who leaves doesn't take it from the others.
        return await asyncio.shield(future)

    async def newest(self, ends: Mapping[Topic, Position], count: int, after: tuple[int, int] | None) -> ports.Newest:
        self._metrics.history_reads += 1
        reading = _Reading(ends, count, self._settings.replay_events, self._settings.replay_bytes)
        try:
            for topic in sorted(ends, key=lambda topic: (topic.name, topic.is_pattern)):
                reading.add(topic, await self._channels(topic, limit=None))
            begin = Place(*after) if after is not None else BEGINNING
            while portion := reading.portion():
                found = await self._library.last(
                    portion.wanted, reading.counts, begin, portion.floor, portion.events, portion.size
                )
                for wanted, each in zip(portion.wanted, found, strict=True):
                    reading.take(wanted, each, self._entries(wanted.channel, each.messages))
        except (RedisError, OSError) as error:
            logger.warning("durable history could not be read: %s", str(error) or type(error).__name__)
            return reading.result("history_unavailable")
        return reading.result("too_many")

    def _forget(self, key: tuple[Topic, Hole], done: asyncio.Future[list[Remembered]]) -> None:
        self._shared.pop(key, None)
        if not done.cancelled():
            done.exception()  # everybody who waited may have left; the loop would complain that nobody looked

    def _start_batch(self) -> None:
        task = asyncio.create_task(self._work())
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _work(self) -> None:
        await asyncio.sleep(0)  # whoever asks in this turn of the event loop is in the same batch
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_QUESTIONS], self._waiting[MAX_QUESTIONS:]
            epoch = self._listening.epoch
            try:
                found = await self._answer_patiently(batch)
            except Exception as error:
                logger.exception("what others know could not be found out")
                self._fail(batch, error)
                continue
            if epoch != self._listening.epoch:
                self._fail(batch, Interrupted())
                continue
            for (topic, hole), kept in zip(batch, found, strict=True):
                topic.ring.learn(hole.position, hole.end, kept)
                future = self._shared.get((topic, hole))
                if future is not None and not future.done():
                    future.set_result(kept)

    def _fail(self, batch: Iterable[tuple[Topic, Hole]], error: Exception) -> None:
        for key in batch:
            future = self._shared.get(key)
            if future is not None and not future.done():
                future.set_exception(error)

    async def _answer_patiently(self, batch: Sequence[tuple[Topic, Hole]]) -> list[list[Remembered]]:
        """The answers, also if no connection can be had for a moment, as when the process is out of descriptors."""
        loop = asyncio.get_running_loop()
        epoch, end = self._listening.epoch, loop.time() + _PATIENCE
        while True:
            last = loop.time() >= end or epoch != self._listening.epoch
            try:
                return await self._answer(batch, give_up=last)
            except (RedisConnectionError, OSError) as error:
                logger.debug("Redis could not be asked, trying again: %s", error)
            await asyncio.sleep(_AGAIN)

    async def _answer(self, batch: Sequence[tuple[Topic, Hole]], give_up: bool) -> list[list[Remembered]]:
        asked = {
            (topic, hole): Question(topic.name, topic.is_pattern, hole.position, hole.end)
            for topic, hole in batch
            # If no worker heard everything, Redis was away for all of them, and asking would be a storm.
            if hole.kind != LOST or await self._witnessed(hole)
        }
        answers = await self._peers.ask(list(dict.fromkeys(asked.values()))) if asked else {}
        found = [
            merge(hole.position, hole.end, answers[asked[topic, hole]]) if (topic, hole) in asked else [hole]
            for topic, hole in batch
        ]
        missing = [
            (topic, each._replace(kind=hole.kind))
            for (topic, hole), kept in zip(batch, found, strict=True)
            for each in kept
            if isinstance(each, Hole)
        ]
        from_redis = await self._from_redis(missing, give_up) if missing else {}
        return [
            fill(
                kept,
                {each: from_redis[topic, each._replace(kind=hole.kind)] for each in kept if isinstance(each, Hole)},
                self._durable_channels.all_of(topic),
            )
            for (topic, hole), kept in zip(batch, found, strict=True)
        ]

    async def _witnessed(self, hole: Hole) -> bool:
        """Whether another worker has heard everything between the ticks around a hole of this worker's own."""
        key = (Position(*hole.position[:2]), hole.end)
        if key[0].generation != key[1].generation:
            return False
        witness = self._witnesses.get(key)
        if witness is None:
            if len(self._witnesses) > _WITNESSES:
                self._witnesses.clear()
            witness = self._witnesses[key] = asyncio.ensure_future(self._peers.heard_all(*key))
        return await asyncio.shield(witness)

    async def _from_redis(
        self, missing: Sequence[tuple[Topic, Hole]], give_up: bool
    ) -> dict[tuple[Topic, Hole], tuple[Sequence[Entry], bool, str]]:
        """What Redis keeps in the holes, whether that is complete, and why not."""
        self._metrics.history_reads += 1
        results: dict[tuple[Topic, Hole], tuple[Sequence[Entry], bool, str]] = {}
        try:
            ranges: list[Range] = []
            owners: list[tuple[Topic, Hole]] = []
            for topic, hole in missing:
                after = Place(hole.position.generation, hole.position.number)
                until = Place(hole.end.generation, hole.end.number)
                for channel in await self._channels(topic):
                    ranges.append(Range(channel, after, until))
                    owners.append((topic, hole))
            entries: dict[tuple[Topic, Hole], list[Entry]] = {owner: [] for owner in missing}
            complete = dict.fromkeys(missing, True)
            cut: set[tuple[Topic, Hole]] = set()
            for owner, range_, found in zip(owners, ranges, await self._read(ranges), strict=True):
                entries[owner] += _placed(self._entries(range_.channel, found.messages), owner[1].position)
                complete[owner] &= found.whole
                if found.cut:
                    cut.add(owner)
            for topic, hole in missing:
                kept = sorted(entries[topic, hole], key=lambda entry: entry.position)
                inside = [entry for entry in kept if hole.position < entry.position <= hole.end]
                reason = "too_many" if (topic, hole) in cut else reason_of(hole, self._durable_channels.all_of(topic))
                results[topic, hole] = (inside, complete[topic, hole], reason)
        except (RedisError, OSError) as error:
            if not give_up and isinstance(error, RedisConnectionError | OSError):
                raise
            logger.warning("durable history could not be read: %s", str(error) or type(error).__name__)
            return dict.fromkeys(missing, ((), False, "history_unavailable"))
        return results

    async def _read(self, ranges: Sequence[Range]) -> list[Found]:
        settings = self._settings
        found: list[Found] = []
        for at in range(0, len(ranges), _CHANNELS_PER_READ):
            some = ranges[at : at + _CHANNELS_PER_READ]
            part = (await self._library.read(some, settings.replay_events, settings.replay_bytes)).found
            # One limit for all of them cuts off what belongs to different streams; one for each would be none.
            room = _MOST_READ * settings.replay_bytes
            for place, one in enumerate(some if len(some) > 1 else ()):
                if part[place].cut and room > 0:
                    (part[place],) = (
                        await self._library.read([one], settings.replay_events, settings.replay_bytes)
                    ).found
                    room -= sum(len(kept.message) for kept in part[place].messages)
            found += part
        return found

    async def _channels(self, topic: Topic, limit: int | None = _MAX_PATTERN_CHANNELS) -> list[str]:
        """The names in Redis of a topic's channels that may have durable messages; of a pattern at most `limit`."""
        if not topic.is_pattern:
            return [self._prefix + topic.name]
        _, glob = self._topics.key(topic)
        names = await self._library.channels(glob.decode())
        return [name.decode() for name in names[:limit]]

    def _entries(self, channel: str, kept: Iterable[Kept]) -> list[Entry]:
        name = channel[len(self._prefix) :]
        entries = []
        for (generation, tick, number), _, message in kept:
            try:
                event = parse(message, True, self._settings.max_payload_bytes, self._settings.max_id_bytes)
            except Undeliverable:  # rejected and counted when it was live
                continue
            entries.append(Entry(Position(generation, tick, number), name, event))
        return entries


class _Portion(NamedTuple):
    wanted: list[Wanted]
    floor: Place
    events: int
    size: int


class _Reading:
    """Reads the newest events of several topics in portions, from now backwards, within one budget.

    Portions, because Redis does nothing else while it puts one together, and neither does this worker while it takes
    one apart; and because whoever wanted them may leave meanwhile.

    Args:
        ends: up to which position, by topic.
        count: how many of each topic; 0: no limit.
        events: how many of all of them.
        size: bytes of their messages.

    Attributes:
        counts: how many are still wanted of each topic, in the order of `ends`.
    """

    def __init__(self, ends: Mapping[Topic, Position], count: int, events: int, size: int) -> None:
        # Everything up to the newest of the ends has been heard on every topic: Redis sends in order.
        end = max(ends.values())
        self._end = Place(end.generation, end.number) if end.generation else BEGINNING
        self._topics = list(ends)
        self.counts = [count or events] * len(ends)
        self._events = events
        self._size = size
        # Where each channel's next message is, of those that have one; and those that were not looked at yet.
        self._left: dict[Wanted, None] = {}
        self._new: list[Wanted] = []
        self._seen: set[str] = set()
        self._pattern_channels = 0
        self._cut: set[Topic] = set(ends)
        # By topic, portions in the order in which they were read.
        self._found: dict[Topic, list[list[Entry]]] = {topic: [] for topic in ends}

    def add(self, topic: Topic, channels: Iterable[str]) -> None:
        """Read these channels for a topic; each is read once, for the topic that is added first."""
        self._cut.discard(topic)
        group = self._topics.index(topic)
        for channel in channels:
            if channel in self._seen:
                continue
            if topic.is_pattern:
                self._pattern_channels += 1
                if self._pattern_channels > _MAX_PATTERN_CHANNELS:
                    self._cut.add(topic)
                    break
            self._seen.add(channel)
            self._new.append(Wanted(channel, group, self._end))

    def portion(self) -> _Portion | None:
        """What is to be read next; None if that is all, or the budget is used up."""
        if self._events <= 0 or self._size <= 0:
            return None
        if len(self._seen) > _CHANNELS_PER_READ and self._new:
            # First see where each channel's newest message is, so that not all are looked at for each portion.
            some, self._new = self._new[:_CHANNELS_PER_READ], self._new[_CHANNELS_PER_READ:]
            return _Portion(some, BEGINNING, 0, 0)
        self._left.update(dict.fromkeys(self._new))
        self._new = []
        wanted = [each for each in self._left if self.counts[each.group] > 0]
        floor = BEGINNING
        if len(wanted) > _CHANNELS_PER_READ:
            wanted.sort(key=lambda each: each.until, reverse=True)
            floor = wanted[_CHANNELS_PER_READ].until
            wanted = wanted[:_CHANNELS_PER_READ]
        if not wanted:
            return None
        return _Portion(wanted, floor, min(_EVENTS_PER_READ, self._events), min(_BYTES_PER_READ, self._size))

    def take(self, wanted: Wanted, found: Newest, entries: list[Entry]) -> None:
        """What a portion holds of one channel."""
        self._left.pop(wanted, None)
        if found.left is not None:
            self._left[wanted._replace(until=found.left)] = None
        self.counts[wanted.group] -= len(found.messages)
        self._events -= len(found.messages)
        self._size -= sum(len(kept.message) for kept in found.messages)
        if entries:
            self._found[self._topics[wanted.group]].append(entries)

    def result(self, reason: str) -> ports.Newest:
        """What was read; `reason` is why the rest could not be, if there is a rest."""
        entries = {
            topic: sorted((entry for part in reversed(parts) for entry in part), key=lambda entry: entry.position)
            for topic, parts in self._found.items()
        }
        unread = [self._topics[each.group] for each in (*self._left, *self._new) if self.counts[each.group] > 0]
        return ports.Newest(entries, dict.fromkeys([*self._cut, *unread], reason))


def _placed(entries: Iterable[Entry], start: Position) -> list[Entry]:
    """One channel's entries, oldest first, all of them after `start`.

    The previous version's workers, which may run beside this one's, store no ticks. Their messages are taken to come
    before the next tick, so that they are neither left out nor out of order.
    """
    placed = []
    era = start.era
    for entry in entries:
        if entry.position.era < era:
            entry = entry._replace(position=entry.position._replace(tick=era[1]))
        era = entry.position.era
        placed.append(entry)
    return placed
