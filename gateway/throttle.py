"""At most one log line per kind and period, so that a flood of bad input is no flood of lines."""

from collections.abc import Callable


class Throttle:
    """Says which occurrence may be reported.

    Args:
        period: seconds between two reports of the same kind.
        clock: seconds, monotonic.
    """

    def __init__(self, period: float, clock: Callable[[], float]) -> None:
        self._period = period
        self._clock = clock
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def allow(self, kind: str) -> int | None:
        """How many were held back since the last report; None if this one is held back too.

        Kinds come from a fixed list of reasons, so the memory for them is bounded.
        """
        now = self._clock()
        if now - self._last.get(kind, -self._period) < self._period:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        self._last[kind] = now
        return self._suppressed.pop(kind, 0)
