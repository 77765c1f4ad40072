"""The past of one topic, as far as it is kept."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

from gateway.memory.entry import Entry, Kept, clip, in_order
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.position import LAST, ZERO, Position

OVERHEAD = 500
"""Bytes that an entry takes beside its text: entry, position and event."""
HOLE_SIZE = 200


def size_of(kept: Kept) -> int:
    """Bytes it is counted with."""
    return kept.event.size + OVERHEAD if isinstance(kept, Entry) else HOLE_SIZE


_NOTHING: deque[Kept] = deque(maxlen=0)
"""An empty deque takes half a kilobyte, and most channels are quiet."""


class Limits:
    """What a ring may hold.

    Args:
        events: entries.
        bytes_: of entries.
        waiting_events: more entries, while somebody is waiting for what came before them.
        waiting_bytes: likewise.
    """

    __slots__ = ("bytes", "events", "pinned_bytes", "pinned_events")

    def __init__(self, events: int, bytes_: int, waiting_events: int, waiting_bytes: int) -> None:
        self.events = events
        self.bytes = bytes_
        self.pinned_events = events + waiting_events
        self.pinned_bytes = bytes_ + waiting_bytes


class Ring:
    """Everything on a topic after `since`, except in its holes.

    Attributes:
        since: None until the topic was first open.
        bytes: size of all entries.
        pins: how many are waiting for what came before its events; meanwhile it may hold more, so that a stream can
            join when the answer has come, even if no events are kept otherwise.
    """

    __slots__ = ("_entries", "_holes", "_learned", "_limits", "_resized", "bytes", "pins", "since")

    def __init__(
        self,
        limits: Limits,
        resized: Callable[[int, int], None] = lambda *_: None,
        learned: Callable[["Ring", Sequence[Kept]], None] = lambda *_: None,
    ) -> None:
        self._limits = limits
        # Told by how many bytes and entries the ring has grown, for the limits of all rings together.
        self._resized = resized
        # Told what else is kept than what has come, for the same limits.
        self._learned = learned
        self._entries = _NOTHING
        self._holes = 0
        self.since: Position | None = None
        self.bytes = 0
        self.pins = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, since: Position) -> None:
        """The topic is open for the first time: from here on everything is kept."""
        self.since = since

    def append(self, kept: Kept) -> None:
        """What has come, or a hole in front of what will come."""
        if self._entries is _NOTHING:
            self._entries = deque()
        self._entries.append(kept)
        self._holes += isinstance(kept, Hole)
        self._grow(size_of(kept), 1)
        self.trim()

    def trim(self) -> None:
        """Forget what is over the limits."""
        limits, entries = self._limits, self._entries
        most, room = (limits.pinned_events, limits.pinned_bytes) if self.pins else (limits.events, limits.bytes)
        assert self.since is not None
        while entries and (
            len(entries) > most or (self.bytes > room and len(entries) > 1) or entries[0].end <= self.since
        ):
            self.evict()

    def evict(self) -> None:
        """Forget the oldest entry."""
        oldest = self._entries.popleft()
        self._holes -= isinstance(oldest, Hole)
        self._grow(-size_of(oldest), -1)
        assert self.since is not None
        self.since = max(self.since, oldest.end)

    def evict_through(self, end: Position, keep: int = 0) -> None:
        """Forget the entries up to that position, but for the newest `keep`."""
        while len(self._entries) > keep and self._entries[0].end <= end:
            self.evict()

    def clear(self) -> None:
        """Forget everything, as if the topic had never been open."""
        self._grow(-self.bytes, -len(self._entries))
        self._entries = _NOTHING
        self._holes = 0
        self.since = None

    def after(self, start: Position) -> list[Kept]:
        """What came after a position; an unknown hole for what is no longer, or was never, kept."""
        assert self.since is not None
        found: list[Kept] = []
        for each in reversed(self._entries):  # the cost is that of what is found
            if each.end > start:
                found.append(each)
            elif not self._holes:  # else a hole that ends later may begin in front of it
                break
        found.reverse()
        before: list[Kept] = [Hole(start, self.since, UNKNOWN)] if start < self.since else []
        return before + list(clip(found, start, LAST))

    def has_more_than(self, count: int, start: Position) -> bool:
        """Whether more entries than that came after a position; the cost doesn't depend on how many there are."""
        return len(self._entries) > count and self._entries[-count - 1].end > start

    def between(self, start: Position, end: Position) -> list[Kept]:
        """What lies in (start, end], which has to be after `since`."""
        return list(clip(self._entries, start, end))

    def newest(self) -> Iterator[Entry]:
        """Its events, newest first; to be read before anything comes."""
        return (each for each in reversed(self._entries) if isinstance(each, Entry))

    def learn(self, start: Position, end: Position, found: Sequence[Kept]) -> None:
        """Keep the answer to a question about (start, end]: it replaces the hole, or goes in front of the ring."""
        if self.since is None:
            return
        asked = next((each for each in self._entries if _asked_about(each, start, end)), None)
        if asked is not None:
            before = [Hole(asked.position, start, asked.kind)] if asked.position < start else []
            behind = [Hole(end, asked.end, asked.kind)] if end < asked.end else []
            # What another worker told may hold durable events within a hole; they are found again.
            kept = [each for each in self._entries if each is not asked and not _is_in(each, start, end)]
            self._replace(in_order([*kept, *before, *found, *behind]))
            self._learned(self, found)
        elif end == self.since and len(self._entries) + len(found) <= self._limits.events:
            if start == ZERO and found and isinstance(found[0], Hole):  # as far back as anybody knows
                start, found = found[0].end, list(clip(found[1:], found[0].end, end))
            self.since = start
            self._replace([*found, *self._entries])
            self._learned(self, found)

    def _replace(self, entries: list[Kept]) -> None:
        self._grow(sum(map(size_of, entries)) - self.bytes, len(entries) - len(self._entries))
        self._entries = deque(entries)
        self._holes = sum(isinstance(each, Hole) for each in entries)
        self.trim()

    def _grow(self, size: int, count: int) -> None:
        self.bytes += size
        self._resized(size, count)


def _is_in(kept: Kept, start: Position, end: Position) -> bool:
    return isinstance(kept, Entry) and start < kept.position <= end


def _asked_about(kept: Kept, start: Position, end: Position) -> TypeGuard[Hole]:
    return isinstance(kept, Hole) and kept.askable and kept.position <= start and end <= kept.end
