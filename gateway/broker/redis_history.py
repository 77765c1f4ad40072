"""The durable messages that Redis keeps."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway import ports
from gateway.broker.library import BEGINNING, Found, Kept, Library, Place, Range
from gateway.broker.reading import CHANNELS_PER_READ, MAX_PATTERN_CHANNELS, Reading
from gateway.broker.topics import WantedTopics
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.durables import reason_of
from gateway.memory.entry import Entry
from gateway.memory.event import Undeliverable, event_of
from gateway.memory.hole import Hole
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_MOST_READ = 2
"""Replays' worth of durable messages read for what is missing on so many channels; the rest is `too_many`."""


class RedisHistory:
    """Reads them.

    Args:
        settings: limits.
        topics: what the worker listens to.
        library: the functions in Redis.
        durable_channels: on which there is nothing else.
        metrics: where reads are counted.
    """

    def __init__(
        self,
        settings: Settings,
        topics: WantedTopics,
        library: Library,
        durable_channels: DurableChannels,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._prefix = settings.channel_prefix
        self._topics = topics
        self._library = library
        self._durable_channels = durable_channels
        self._metrics = metrics

    async def newest(self, ends: Mapping[Topic, Position], count: int, after: tuple[int, int] | None) -> ports.Newest:
        """As `ports.Past.newest`."""
        self._metrics.history_reads += 1
        reading = Reading(ends, count, self._settings.replay_events, self._settings.replay_bytes)
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

    async def within(
        self, missing: Sequence[tuple[Topic, Hole]], give_up: bool
    ) -> dict[tuple[Topic, Hole], tuple[Sequence[Entry], bool, str]]:
        """What Redis keeps in some holes, whether that is complete, and why not.

        Args:
            missing: the holes.
            give_up: don't raise anything: what could not be read is incomplete.

        Raises:
            OSError, redis.exceptions.ConnectionError: Redis could not be reached.
        """
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
        for at in range(0, len(ranges), CHANNELS_PER_READ):
            some = ranges[at : at + CHANNELS_PER_READ]
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

    async def _channels(self, topic: Topic, limit: int | None = MAX_PATTERN_CHANNELS) -> list[str]:
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
                event = event_of(name, message, True, self._settings.max_payload_bytes, self._settings.max_id_bytes)
            except Undeliverable:  # rejected and counted when it was live
                continue
            entries.append(Entry(Position(generation, tick, number), name, event))
        return entries


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
