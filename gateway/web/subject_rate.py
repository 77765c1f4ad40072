"""How often one subject may ask for something."""

from collections.abc import Callable

from gateway.fanout.quotas import Quotas
from gateway.web.problem import Problem


class SubjectRate:
    """A limit for each subject of a grant. Nobody's has none: all of them would share one.

    Args:
        rate: per second; 0: no limit.
        setting: its name, for the error.
        said: what a subject does that has reached it; `{rate}` stands for the limit.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float, setting: str, said: str, clock: Callable[[], float]) -> None:
        self._quotas = Quotas(0, rate, 0, 0.0, clock)
        self._said = f"{said.format(rate=f'{rate:g}')} per second (setting {setting})."

    def take(self, sub: str | None) -> None:
        """Count one more.

        Raises:
            Problem: 429, it would be too much.
        """
        if self._quotas.enabled and self._quotas.exceeded(sub or "", ()):
            raise Problem(429, f"{sub!r} {self._said}", {"Retry-After": "1"})

    def sweep(self) -> None:
        """Forget who hasn't asked lately; to be called every second or so."""
        self._quotas.sweep()
