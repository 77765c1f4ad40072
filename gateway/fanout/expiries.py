"""Streams whose grant ends: told in advance, then ended."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from gateway.fanout.subscriber import Subscriber

_LONGEST = 60.0
"""Seconds: the clock of the wall can be set, which no timer notices."""
_AT_ONCE = 100
"""Streams told or ended in one turn of the event loop: tokens that were made together end together."""
_AGAIN = 0.5
"""Seconds after which a stream that could not be told is told again."""
_STALE = 1000


class Expiries:
    """Knows when each stream's grant ends.

    Args:
        notice: seconds before that in which the stream is told; 0: it isn't.
        now: seconds since 1970.
        tell: told of a stream whose grant ends, and when; says whether the stream could be told.
        end: told of a stream whose grant has ended.
    """

    def __init__(
        self,
        notice: float,
        now: Callable[[], float],
        tell: Callable[[Subscriber, float], bool],
        end: Callable[[Subscriber], None],
    ) -> None:
        self._notice = notice
        self._now = now
        self._tell = tell
        self._end = end
        self._expiries: dict[Subscriber, float] = {}
        # By time; those of streams that have ended since are skipped. The last says whether it is the end.
        self._times: list[tuple[float, int, Subscriber, bool]] = []
        self._number = count()
        self._sooner = asyncio.Event()

    def __len__(self) -> int:
        return len(self._expiries)

    def add(self, subscriber: Subscriber, at: float) -> None:
        """The grant of a stream ends at that time, in seconds since 1970."""
        if subscriber.closed is not None:
            return
        self._expiries[subscriber] = at
        first = self._times[0][0] if self._times else None
        if self._notice:
            heapq.heappush(self._times, (at - self._notice, next(self._number), subscriber, False))
        heapq.heappush(self._times, (at, next(self._number), subscriber, True))
        if first is None or self._times[0][0] < first:
            self._sooner.set()
        if len(self._times) > 2 * len(self._expiries) + _STALE:
            self._times = [each for each in self._times if each[2] in self._expiries]
            heapq.heapify(self._times)

    def discard(self, subscriber: Subscriber) -> None:
        """The stream has ended."""
        self._expiries.pop(subscriber, None)

    async def run(self) -> None:
        """Tell and end what is due, until cancelled."""
        while True:
            self._sooner.clear()
            delay = self._due()
            try:
                async with asyncio.timeout(delay):
                    await self._sooner.wait()
            except TimeoutError:
                pass

    def _due(self) -> float | None:
        """Do what is due; returns the seconds until something else may be."""
        for _ in range(_AT_ONCE):
            if not self._times:
                return None
            at, _, subscriber, is_end = self._times[0]
            if (left := at - self._now()) > 0:
                return min(left, _LONGEST)
            heapq.heappop(self._times)
            if subscriber not in self._expiries:
                continue
            if is_end:
                del self._expiries[subscriber]
                self._end(subscriber)
            elif not self._tell(subscriber, self._expiries[subscriber]):
                heapq.heappush(self._times, (self._now() + _AGAIN, next(self._number), subscriber, False))
        return 0.0
