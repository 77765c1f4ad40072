"""All rings of a worker, within common limits of size and age."""

from collections import deque
from collections.abc import Callable

from gateway.memory.entry import Kept
from gateway.memory.position import Position
from gateway.memory.ring import Limits, Ring
from gateway.settings import Settings

_ORDER_SLACK = 1000


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
        self._order: deque[tuple[Ring, Position, float]] = deque()

    def ring(self) -> Ring:
        """A new ring."""
        return Ring(self._limits, self._resized)

    def append(self, ring: Ring, kept: Kept) -> None:
        """Keep what has come."""
        now = self._clock()
        ring.append(kept)
        if self._limits.events or ring.pins:
            self._order.append((ring, kept.end, now))
        if self.bytes > self._total_bytes or (self._order and self._order[0][2] < now - self._age):
            self._evict_oldest(now)
        if len(self._order) > 2 * self.entries + _ORDER_SLACK:
            self._order = deque(each for each in self._order if each[0].since is not None and each[0].since < each[1])

    def sweep(self) -> None:
        """Forget what is too old; called now and then for topics on which nothing comes any more."""
        self._evict_oldest(self._clock())

    def _resized(self, size: int, count: int) -> None:
        self.bytes += size
        self.entries += count

    def _evict_oldest(self, now: float) -> None:
        order = self._order
        while order and (self.bytes > self._total_bytes or order[0][2] < now - self._age):
            ring, end, _ = order.popleft()
            if ring.since is None or end <= ring.since:
                continue
            # The newest stays however old it is: a client that has seen it has missed nothing.
            ring.evict_through(end, keep=0 if self.bytes > self._total_bytes else 1)
