"""When workers could not hear what was published, by the harness' clock."""

from dataclasses import dataclass, replace

_SLACK = 500_000_000
"""Nanoseconds: what was published so shortly before a fault may not have reached who loses its stream then."""


@dataclass(frozen=True)
class Trouble:
    """One such time, in `time.monotonic_ns()`.

    Attributes:
        groups: of channels on which somebody missed something.
    """

    begin: int
    end: int
    groups: frozenset[str]


class Troubles:
    """All of one row."""

    def __init__(self) -> None:
        self._all: list[Trouble] = []

    def add(self, begin: int, end: int, groups: frozenset[str]) -> None:
        self._all.append(Trouble(begin - _SLACK, end, groups))

    def extend(self, end: int) -> None:
        """The last one has lasted until then."""
        if self._all:
            self._all[-1] = replace(self._all[-1], end=end)

    def hit(self, group: str, sent: int, answered: int) -> bool:
        """Whether a message was published in one of them: Redis published it somewhere between the two times."""
        return any(sent <= one.end and answered >= one.begin and group in one.groups for one in self._all)
