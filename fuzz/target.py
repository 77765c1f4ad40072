"""What is fuzzed."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.stage import Stage


class Target(ABC):
    """A way into a worker. Its docstring says, in a sentence, what is sent and what must not come of it.

    Attributes:
        name: in the table, and in files.
        share: of all cases, compared with the other targets.
        settings: of its worker.
        batch: so many cases are played together.
        counts: what came of the cases, for the table.
    """

    name: ClassVar[str]
    share: ClassVar[int]
    settings: ClassVar[Mapping[str, Any]] = {}
    batch: ClassVar[int] = 200

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def make(self, chance: Chance) -> Any:
        """What a case consists of: lists, texts, numbers, bytes."""

    @abstractmethod
    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        """Send the cases to the worker, and look at what comes."""

    def prepare(self, stage: Stage) -> None:  # noqa: B027
        """What has to be there before the first case."""
