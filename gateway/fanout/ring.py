"""The recent events of one topic, so that a client can go on where it was."""

from bisect import bisect_left
from collections import deque
from typing import NamedTuple

from gateway.fanout.event import Event
from gateway.fanout.ids import parse_ring

CLOCK_TOLERANCE_MS = 5_000
"""How far apart two workers' receipt times of one message may lie. Wider, and a repetition of the same three messages
could be taken for the one that is looked for, and what lies between would be lost without a word."""


_DELAY_MS = 500
"""How far apart two workers usually receive a message, on Redis' clock, when one of them is busy."""
_CERTAINTY_MS = 1_000


class Entry(NamedTuple):
    """One event kept.

    Attributes:
        seq: its place in the order in which this worker received everything.
        channel: where it was published.
        event: the event, or a gap event, which is kept in its place like any other.
        time_ms: when it was received, on Redis' clock.
        time: the same on the event loop's clock, in seconds, for its age.
        size: bytes it is counted with.
    """

    seq: int
    channel: str
    event: Event
    time_ms: int
    time: float
    size: int


class Stretch:
    """Places in the order that were given later than the events were heard, or by what another worker heard.

    Their order says nothing about events on channels outside the stretch.

    Attributes:
        begin: the place before the first.
        end: the last.
    """

    __slots__ = ("begin", "end")

    def __init__(self, begin: int) -> None:
        self.begin = self.end = begin

    def __contains__(self, seq: int) -> bool:
        return self.begin < seq <= self.end


class Ring:
    """Events in the order of their receipt.

    Attributes:
        stretch: where it began, if it began with more than this worker heard as it came.
        since: everything received after this place in the order is here.
        unsure_until_ms: up to this time there may have been events that can't be found here by the id another worker
            gave them: evicted ones, and those this worker gave an id of its own.
        bytes: size of all entries.
    """

    __slots__ = ("_base", "_entries", "_places", "bytes", "since", "stretch", "unsure_until_ms")

    def __init__(self, since: int, stretch: Stretch | None = None) -> None:
        self.since = since
        self.stretch = stretch
        self.unsure_until_ms = 0
        self.bytes = 0
        self._entries: deque[Entry] = deque()
        # From an id (or its hash, for those workers give) to when its events came and where they stand, counted from
        # the first ever. The times don't run backwards, so that the nearest is found without looking at all.
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._base = 0

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        key = _key(entry.event)
        if key is not None:
            self._places.setdefault(key, []).append((entry.time_ms, self._base + len(self._entries)))
        self._entries.append(entry)
        self.bytes += entry.size

    def evict(self) -> Entry:
        """Forget the oldest entry."""
        entry = self._entries.popleft()
        self._base += 1
        self.bytes -= entry.size
        self.since = entry.seq
        self.unsure_until_ms = max(self.unsure_until_ms, entry.time_ms)
        key = _key(entry.event)
        if key is not None:
            places = self._places[key]
            places.pop(0)
            if not places:
                del self._places[key]
        return entry

    def evict_through(self, seq: int, keep: int = 0) -> None:
        """Forget the entries up to that place in the order, but for the newest `keep`."""
        while len(self._entries) > keep and self._entries[0].seq <= seq:
            self.evict()

    def after(self, seq: int) -> list[Entry]:
        """The entries after that place in the order."""
        found = []
        for entry in reversed(self._entries):
            if entry.seq <= seq:
                break
            found.append(entry)
        found.reverse()
        return found

    def surely_after(self, id_: str) -> int | None:
        """The place from which on everything came after an event that is not here, by the time in its id.

        None if the id tells no time. Events of the second after it are left out: another worker's clock, or its
        delay, may have put that event among them.
        """
        wanted = parse_ring(id_)
        if wanted is None:
            return None
        seq = None
        for entry in reversed(self._entries):
            if entry.time_ms <= wanted.ms + _CERTAINTY_MS:
                break
            seq = entry.seq - 1
        return seq

    def last(self, count: int) -> list[Entry]:
        """The newest `count` entries that are events with an id (gaps are not)."""
        found: list[Entry] = []
        for entry in reversed(self._entries):
            if len(found) == count:
                break
            if entry.event.id is not None:
                found.append(entry)
        found.reverse()
        return found

    def find(self, id_: str) -> int | None:
        """The place in the order of the event a client names; None if it is not here.

        Ids that workers give are found by their hash, nearest in time, for another worker may have received the
        message a little earlier or later. All others are found as they are. Of several the earliest is taken:
        repeating an event is better than losing one.
        """
        if places := self._places.get(id_):
            return self._entries[places[0][1] - self._base].seq
        wanted = parse_ring(id_)
        places = self._places.get(_hash_key(wanted.hash)) if wanted else None
        if wanted is None or not places:
            return None
        at = bisect_left(places, (wanted.ms, 0))
        nearest = min(places[max(0, at - 1) : at + 1], key=lambda place: abs(place[0] - wanted.ms))
        apart = abs(nearest[0] - wanted.ms)
        # The same three messages may have come again: the one that is looked for may be one that can't be found here.
        sure = wanted.ms > self.unsure_until_ms + _DELAY_MS
        if apart <= _DELAY_MS or (sure and apart <= CLOCK_TOLERANCE_MS):
            return self._entries[nearest[1] - self._base].seq
        return None


def _key(event: Event) -> str | None:
    return _hash_key(event.ring_hash) if event.ring_hash else event.id or None


def _hash_key(hash_: str) -> str:
    return "#" + hash_
