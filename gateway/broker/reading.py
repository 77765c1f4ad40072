"""Reading the newest durable events of several topics, in portions."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway import ports
from gateway.broker.library import BEGINNING, Newest, Place, Wanted
from gateway.memory.entry import Entry
from gateway.memory.position import Position
from gateway.memory.topic import Topic

CHANNELS_PER_READ = 100
"""Redis does nothing else meanwhile."""
_EVENTS_PER_READ = 250
_BYTES_PER_READ = 262_144
"""Of a portion of a long history: a few milliseconds for Redis, and for this worker."""
MAX_PATTERN_CHANNELS = 1000
"""Of all patterns of a stream."""


class Portion(NamedTuple):
    wanted: list[Wanted]
    floor: Place
    events: int
    size: int


class Reading:
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
                if self._pattern_channels > MAX_PATTERN_CHANNELS:
                    self._cut.add(topic)
                    break
            self._seen.add(channel)
            self._new.append(Wanted(channel, group, self._end))

    def portion(self) -> Portion | None:
        """What is to be read next; None if that is all, or the budget is used up."""
        if self._events <= 0 or self._size <= 0:
            return None
        if len(self._seen) > CHANNELS_PER_READ and self._new:
            # First see where each channel's newest message is, so that not all are looked at for each portion.
            some, self._new = self._new[:CHANNELS_PER_READ], self._new[CHANNELS_PER_READ:]
            return Portion(some, BEGINNING, 0, 0)
        self._left.update(dict.fromkeys(self._new))
        self._new = []
        wanted = [each for each in self._left if self.counts[each.group] > 0]
        floor = BEGINNING
        if len(wanted) > CHANNELS_PER_READ:
            wanted.sort(key=lambda each: each.until, reverse=True)
            floor = wanted[CHANNELS_PER_READ].until
            wanted = wanted[:CHANNELS_PER_READ]
        if not wanted:
            return None
        return Portion(wanted, floor, min(_EVENTS_PER_READ, self._events), min(_BYTES_PER_READ, self._size))

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
