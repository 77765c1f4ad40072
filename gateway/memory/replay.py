"""What a client that comes back has missed, in the order in which it is sent."""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event, own_event
from gateway.memory.glob import compile_glob
from gateway.memory.hole import Hole
from gateway.memory.place import (
    FIRST_GENERATION,
    NOWHERE,
    Suffix,
    ambiguous_keys,
    format_era,
    format_part,
)
from gateway.memory.position import ZERO, Position, end_of_era
from gateway.memory.topic import State, Topic


class Limits(NamedTuple):
    """How much is sent again to one client."""

    events: int
    bytes: int


class New(NamedTuple):
    """Topics of a stream that were added since the id that its client has come back with.

    Attributes:
        topics: which.
        said: what the stream's ids say of them; see `gateway.memory.place`.
        begin: where they begin. Ids from before say nothing of them: to a client that comes back with one they are
            still new.
    """

    topics: frozenset[Topic]
    said: str
    begin: Position


NO_NEW = New(frozenset(), "", ZERO)


class Replayed(NamedTuple):
    """One event of a replay.

    Attributes:
        channel: where it was published; of a gap, its topic's name.
        id: None for a gap: what is kept of the missing part comes after it, so a client that is disconnected there
            has to get the gap again.
    """

    channel: str
    event: Event
    id: str | None


def gap(channel: str, reason: str, since: str | None) -> Event:
    """The event that reports missing events.

    Args:
        channel: the channel, or pattern.
        reason: `redis_lost` (no worker heard Redis), `redis_restarted` (Redis restarted, or another one took over),
            `history_lost` (Redis' data is not what the client saw), `not_kept` (no worker has it any more), `trimmed`
            (durable, and Redis has it no more), `history_unavailable` (Redis couldn't be asked), `unknown_id`,
            `uncounted` (Redis refused to count), `too_many` (more than is sent again; the newest follow), `overflow`
            (this client read too slowly).
        since: the last id before it, if there is one.
    """
    return own_event("gateway.gap", {"channel": channel, "reason": reason, "since": since})


def merge_topics(
    limits: Limits,
    topics: Sequence[Topic],
    returning: Collection[Topic],
    missed: Mapping[Topic, Iterable[Kept]],
) -> tuple[list[tuple[Topic, Kept]], list[Topic]]:
    """What was missed on several topics, along the ticks; each topic keeps its order.

    An event heard through several of the stream's topics is taken from the first that the client had, too. What isn't
    sent is hardly looked at: the cost is that of what is returned.

    Args:
        limits: the newest that are within them are returned, one event at least.
        topics: of the stream.
        returning: those that the client had.
        missed: by topic, newest first.

    Returns:
        Those, oldest first, and the topics of which something was cut off.
    """
    cursors = _cursors(topics, returning, missed)
    heapq.heapify(cursors)
    merged: list[tuple[Topic, Kept]] = []
    events, room = 0, limits.bytes
    while cursors:
        _, _, topic, each, rest = cursors[0]
        if isinstance(each, Entry):
            room -= each.event.size
            if events == limits.events or (room < 0 and events):
                break
            events += 1
        merged.append((topic, each))
        if (following := next(rest, None)) is not None:
            heapq.heapreplace(cursors, _Cursor(_newest_first(following), cursors[0].place, topic, following, rest))
        else:
            heapq.heappop(cursors)
    # Holes in what is cut off are covered by its own gap.
    cut = sorted((cursor.topic for cursor in cursors), key=_by_name)
    merged.reverse()
    return merged, cut


class _Cursor(NamedTuple):
    """Where the merging is on one topic. Nothing behind `place` is compared: no two have the same."""

    era: tuple[int, int]
    place: int
    topic: Topic
    next: Kept
    rest: Iterator[Kept]


def _cursors(
    topics: Sequence[Topic], returning: Collection[Topic], missed: Mapping[Topic, Iterable[Kept]]
) -> list[_Cursor]:
    first = _First(sorted(missed, key=lambda topic: (topic not in returning, *_by_name(topic))))

    def delivered(topic: Topic) -> Iterator[Kept]:
        kept = missed[topic]
        if len(topics) == 1:
            return iter(kept)
        return (each for each in kept if isinstance(each, Hole) or first.of(each.channel) is topic)

    cursors = []
    for place, topic in enumerate(sorted(missed, key=_by_name)):
        rest = delivered(topic)
        if (each := next(rest, None)) is not None:
            cursors.append(_Cursor(_newest_first(each), -place, topic, each, rest))
    return cursors


def _newest_first(kept: Kept) -> tuple[int, int]:
    generation, tick = kept.position[:2]
    return -generation, -tick


class Replay:
    """What is sent, with its ids; made while it is read, because it can be long.

    It is what was missed up to when this was made, however much later it is read.

    Args:
        topics: of the stream.
        start: where the stream begins.
        gaps: by topic, why what came before the beginning can't be given.
        merged: what was missed, in order.
        since: the id the client has come back with.
        new: the topics that were added since the id.
        proof: what the stream's ids say of whose it is; see `gateway.memory.place`.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        start: Mapping[Topic, Position],
        gaps: Mapping[Topic, str],
        merged: Sequence[tuple[Topic, Kept]],
        since: str | None,
        new: New = NO_NEW,
        proof: str = "",
    ) -> None:
        self._topics = topics
        self._start = start
        self._gaps = gaps
        self._merged = merged
        self._since = since
        self._new = new
        self._proof = proof
        self._counted = not any(topic.state is State.UNCOUNTED for topic in topics)

    def __bool__(self) -> bool:
        return bool(self._gaps or self._merged)

    def is_within(self, limits: Limits) -> bool:
        """Whether it is no larger than that."""
        if len(self._gaps) + len(self._merged) > limits.events:
            return False
        return sum(each.event.size for _, each in self._merged if isinstance(each, Entry)) <= limits.bytes

    def __iter__(self) -> Iterator[Replayed]:
        since = self._since
        for topic, reason in self._gaps.items():
            yield Replayed(topic.name, gap(topic.name, reason, since), None)
        ids = _Ids(self._topics, self._start, self._new, self._proof)
        reported: set[tuple[Topic, str]] = set()  # since the last event
        for topic, each in self._merged:
            if isinstance(each, Hole):
                if (topic, each.kind) not in reported:
                    reported.add((topic, each.kind))
                    yield Replayed(topic.name, gap(topic.name, each.kind, since), None)
                continue
            reported.clear()
            since = ids.after(topic, each) if self._counted else ids.nowhere
            yield Replayed(each.channel, each.event, since)


class _Ids:
    """The ids of a stream's events, one after the other.

    Attributes:
        nowhere: what they are where there are no positions.
    """

    def __init__(self, topics: Sequence[Topic], start: Mapping[Topic, Position], new: New, proof: str) -> None:
        self._new = new
        self._proof = proof
        self.nowhere = Suffix(proof=proof).on(NOWHERE)
        self._own_ids_alone = len(topics) == 1 and not topics[0].is_pattern and not proof
        ambiguous = ambiguous_keys(topics)
        self._keys = {topic: topic.long_key if topic.key in ambiguous else topic.key for topic in topics}
        self._at = dict(start)
        self._era: tuple[int, int] = (0, 0)
        self._head = ""
        self._tail = ""
        # What the id says of each topic that had a message since the tick: with a hundred topics, making it again for
        # each event would be most of what a replay costs.
        self._parts: dict[str, str] = {}
        self._too_early = False

    def after(self, topic: Topic, entry: Entry) -> str:
        """The id of the next event."""
        own_id, position = entry.event.own_id, entry.position
        if own_id and self._own_ids_alone:
            return own_id
        if position.generation < FIRST_GENERATION:  # of the previous version, which numbered by the millisecond
            previous = f"{position.generation}-{position.durable}"
            return f"{previous}~{self.nowhere}" if self._proof else previous
        self._at[topic] = position
        if position[:2] != self._era:
            self._begin_era(position[:2])
        if not (self._too_early and topic in self._new.topics):
            key = self._keys[topic]
            self._parts[key] = format_part(key, position)
        place = self._head + "".join(self._parts.values()) + self._tail
        return f"{own_id}~{place}" if own_id else place

    def _begin_era(self, era: tuple[int, int]) -> None:
        self._era = era
        self._head = format_era(era)
        self._too_early = end_of_era(era) <= self._new.begin
        self._tail = Suffix("" if self._too_early else self._new.said, self._proof).on("")
        self._parts = {
            self._keys[other]: format_part(self._keys[other], at)
            for other, at in self._at.items()
            if at[:2] == era and at[2:] != (0, 0) and not (self._too_early and other in self._new.topics)
        }


class _First:
    """Which of several topics delivers a channel's events."""

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._topics = [(topic, compile_glob(topic.name.encode()) if topic.is_pattern else None) for topic in topics]
        self._known: dict[str, Topic | None] = {}

    def of(self, channel: str) -> Topic | None:
        if channel not in self._known:
            name = channel.encode()
            self._known[channel] = next(
                (
                    topic
                    for topic, glob in self._topics
                    if (glob.fullmatch(name) if glob is not None else topic.name == channel)
                ),
                None,
            )
        return self._known[channel]


def _by_name(topic: Topic) -> tuple[str, bool]:
    return topic.name, topic.is_pattern
