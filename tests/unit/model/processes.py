"""What a worker does in its own time, as generators: no event loop, and every interleaving can be had."""

import random
from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias


class Wait(NamedTuple):
    """What a process waits for.

    Attributes:
        patient: False if it goes on after a while even if nothing has happened.
    """

    until: Callable[[], bool]
    patient: bool = True


Process: TypeAlias = Generator[Wait, bool, None]
"""Is sent whether it has waited in vain."""


def at_some_time() -> bool:
    """Condition of a process that only lets others go first."""
    return True


class Processes:
    """The processes of one worker."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Process, Wait]] = []

    def start(self, process: Process) -> None:
        """Run a process up to where it first waits."""
        self._advance(process, None)

    def run(self, rng: random.Random, share: float, impatient: bool) -> bool:
        """Resume those that can go on, or some of them; whether there was one.

        Args:
            share: of those that can go on.
            impatient: those that don't wait forever have waited long enough.
        """
        waiting, self._waiting = self._waiting, []
        moved = False
        for process, wait in waiting:
            ready = wait.until()
            if (ready or (impatient and not wait.patient)) and rng.random() < share:
                moved = True
                self._advance(process, not ready)
            else:
                self._waiting.append((process, wait))
        return moved

    def _advance(self, process: Process, in_vain: bool | None) -> None:
        try:
            wait = next(process) if in_vain is None else process.send(in_vain)
        except StopIteration:
            return
        self._waiting.append((process, wait))
