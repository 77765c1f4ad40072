"""What a client that comes back has missed, in the order in which it is sent."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event, own_event
from gateway.memory.glob import compile_glob
from gateway.memory.hole import Hole
from gateway.memory.place import FIRST_GENERATION, INCLUDED, NOWHERE, ambiguous_keys, format_place
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
    topics: Sequence[Topic], returning: Collection[Topic], missed: Mapping[Topic, Iterable[Kept]]
) -> list[tuple[Topic, Kept]]:
    """What was missed on several topics, along the ticks; each topic keeps its order.

    An event heard through several of the stream's topics is taken from the first that the client had, too.
    """
    if len(topics) == 1:
        return [(topics[0], each) for each in missed.get(topics[0], ())]
    first = _First(sorted(missed, key=lambda topic: (topic not in returning, *_by_name(topic))))
    merged = [
        (topic, each)
        for topic in sorted(missed, key=_by_name)
        for each in missed[topic]
        if isinstance(each, Hole) or first.of(each.channel) is topic
    ]
    merged.sort(key=lambda pair: pair[1].position[:2])  # stable
    return merged


def within(limits: Limits, merged: Sequence[tuple[Topic, Kept]]) -> tuple[list[tuple[Topic, Kept]], list[Topic]]:
    """The newest that are within the limits, one event at least, and the topics of which something was cut off."""
    events, room = 0, limits.bytes
    for place in range(len(merged) - 1, -1, -1):
        each = merged[place][1]
        if isinstance(each, Hole):
            continue
        room -= each.event.size
        if events == limits.events or (room < 0 and events):
            cut = dict.fromkeys(topic for topic, _ in merged[: place + 1])
            # Holes in what is cut off are covered by its own gap.
            return list(merged[place + 1 :]), list(cut)
        events += 1
    return list(merged), []


def replay(
    topics: Sequence[Topic],
    start: Mapping[Topic, Position],
    gaps: Mapping[Topic, str],
    merged: Iterable[tuple[Topic, Kept]],
    since: str | None,
    new: New = NO_NEW,
) -> list[Replayed]:
    """What is sent, with its ids.

    Args:
        topics: of the stream.
        start: where the stream begins.
        gaps: by topic, why what came before the beginning can't be given.
        merged: what was missed, in order.
        since: the id the client has come back with.
        new: the topics that were added since the id.
    """
    sent = [Replayed(topic.name, gap(topic.name, reason, since), None) for topic, reason in gaps.items()]
    ids = _Ids(topics, start, new)
    counted = not any(topic.state is State.UNCOUNTED for topic in topics)
    reported: set[tuple[Topic, str]] = set()  # since the last event
    for topic, each in merged:
        if isinstance(each, Hole):
            if (topic, each.kind) not in reported:
                reported.add((topic, each.kind))
                sent.append(Replayed(topic.name, gap(topic.name, each.kind, since), None))
            continue
        reported.clear()
        since = ids.after(topic, each) if counted else NOWHERE
        sent.append(Replayed(each.channel, each.event, since))
    return sent


class _Ids:
    """The ids of a stream's events, one after the other."""

    def __init__(self, topics: Sequence[Topic], start: Mapping[Topic, Position], new: New) -> None:
        self._new = new
        self._single_channel = len(topics) == 1 and not topics[0].is_pattern
        ambiguous = ambiguous_keys(topics)
        self._keys = {topic: topic.long_key if topic.key in ambiguous else topic.key for topic in topics}
        self._at = dict(start)
        self._era: tuple[int, int] = (0, 0)
        self._named: dict[str, Position] = {}
        self._too_early = False

    def after(self, topic: Topic, entry: Entry) -> str:
        """The id of the next event."""
        own_id, position = entry.event.own_id, entry.position
        if own_id and self._single_channel:
            return own_id
        if position.generation < FIRST_GENERATION:  # of the previous version, which numbered by the millisecond
            return f"{position.generation}-{position.durable}"
        self._at[topic] = position
        if position[:2] != self._era:
            self._era = position[:2]
            self._too_early = end_of_era(self._era) <= self._new.begin
            self._named = {
                self._keys[other]: at
                for other, at in self._at.items()
                if at[:2] == self._era and not (self._too_early and other in self._new.topics)
            }
        if not (self._too_early and topic in self._new.topics):
            self._named[self._keys[topic]] = position
        place = format_place(self._era, self._named.items())
        if self._new.said and not self._too_early:
            place += INCLUDED + self._new.said
        return f"{own_id}~{place}" if own_id else place


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
