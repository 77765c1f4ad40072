"""All rings of a worker, within common limits of size and age."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from gateway.memory.entry import Kept
from gateway.memory.position import Position
from gateway.memory.ring import Limits, Ring
from gateway.settings import Settings

_ORDER_SLACK = 1000

_Place: TypeAlias = tuple[Ring, Position, float]
"""Of an entry: its ring, where it ends, and when it came (event loop time, seconds)."""


class History:
    """Makes rings, and forgets the oldest entries of all of them.

    Args:
        settings: the limits.
        clock: event loop time, seconds.

    Attributes:
        bytes: size of all entries of all rings.
        entries: how many there are.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.bytes = 0
        self.entries = 0
        self._clock = clock
        self._limits = Limits(
            settings.history_events, settings.history_bytes, settings.queue_events, settings.queue_bytes
        )
        self._total_bytes = settings.history_total_bytes
        self._age = settings.history_age
        # All entries in the order in which they came, to find the oldest; those evicted meanwhile are skipped.
        self._order: deque[_Place] = deque()
        # Likewise those that are too old, and stay because they are the newest of their ring.
        self._old: deque[_Place] = deque()

    def ring(self) -> Ring:
        """A new ring."""
        return Ring(self._limits, self._resized, self._learned)

    def append(self, ring: Ring, kept: Kept) -> None:
        """Keep what has come."""
        now = self._clock()
        ring.append(kept)
        if self._limits.events or ring.pins:
            self._order.append((ring, kept.end, now))
        if self.bytes > self._total_bytes or (self._order and self._order[0][2] < now - self._age):
            self._evict_oldest(now)
        if len(self._order) > 2 * self.entries + _ORDER_SLACK:
            self._order = deque(filter(_is_kept, self._order))

    def sweep(self) -> None:
        """Forget what is too old; called now and then for topics on which nothing comes any more."""
        self._evict_oldest(self._clock())

    def _resized(self, size: int, count: int) -> None:
        self.bytes += size
        self.entries += count

    def _learned(self, ring: Ring, found: Sequence[Kept]) -> None:
        """What others knew counts as if it had come now: how old it is, they don't say."""
        now = self._clock()
        self._order.extend((ring, each.end, now) for each in found)
        self._evict_oldest(now)

    def _evict_oldest(self, now: float) -> None:
        while self._order and self._order[0][2] < now - self._age:
            place = self._order.popleft()
            if _is_kept(place):
                # The newest stays however old it is: a client that has seen it has missed nothing.
                place[0].evict_through(place[1], keep=1)
                if _is_kept(place):
                    self._old.append(place)
        for order in (self._old, self._order):
            while order and self.bytes > self._total_bytes:
                place = order.popleft()
                if _is_kept(place):
                    place[0].evict_through(place[1])
        if len(self._old) > 2 * self.entries + _ORDER_SLACK:
            self._old = deque(filter(_is_kept, self._old))


def _is_kept(place: _Place) -> bool:
    ring, end, _ = place
    return ring.since is not None and ring.since < end
