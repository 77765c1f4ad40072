"""How many new streams are taken in a second."""

from collections.abc import Callable


class Budget:
    """A token bucket that holds one second's worth.

    Args:
        rate: per second; 0: no limit.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = max(rate, 1.0)
        self._last = clock()

    @property
    def full(self) -> bool:
        """Whether nothing was taken lately."""
        return not self._rate or self._tokens + (self._clock() - self._last) * self._rate >= max(self._rate, 1.0)

    def take(self) -> bool:
        """Whether there is room for one more now."""
        if not self._rate:
            return True
        now = self._clock()
        self._tokens = min(max(self._rate, 1.0), self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
