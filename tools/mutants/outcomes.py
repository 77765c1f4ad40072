"""What became of each mutant; kept in the copy, so that a run can go on where it was stopped."""

import json
from collections.abc import Iterable, Iterator

from tools.mutants.prepare import COPY

KILLED, SURVIVED, UNCALLED = "killed", "survived", "not called"
LAYERS = ("quick", "slow", "live")
"""The unit tests in two parts, and the live tests."""
_FILE = COPY / "outcomes.json"


class Outcomes:
    """By mutant, its outcome on each layer on which it was tried.

    Attributes:
        mutants: all there are.
    """

    def __init__(self) -> None:
        known: dict[str, dict[str, str]] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
        self._of: dict[str, dict[str, str]] = {}
        for mutant, code in _all():
            before = known.get(mutant, {})
            # The mutants of a function that has changed are others, by the same names.
            self._of[mutant] = before if before.get("code") == code else {"code": code}
        self.mutants = list(self._of)

    def note(self, layer: str, outcomes: Iterable[tuple[str, str]]) -> None:
        """Write down the outcomes on a layer."""
        for mutant, outcome in outcomes:
            self._of[mutant][layer] = outcome
        _FILE.write_text(json.dumps(self._of, indent=1))

    def forget_survivors(self, mutants: Iterable[str]) -> None:
        """Have those of them tried again that no test has noticed: there are other tests now."""
        for mutant in mutants:
            if not self.is_killed(mutant):
                self._of[mutant] = {"code": self._of[mutant]["code"]}

    def on(self, mutant: str, layer: str) -> str | None:
        """Its outcome on a layer; None if it has not been tried there."""
        return self._of[mutant].get(layer)

    def is_let_through(self, mutant: str) -> bool:
        """Whether the quick unit tests don't notice it."""
        return self.on(mutant, "quick") in (SURVIVED, UNCALLED)

    def is_left(self, mutant: str) -> bool:
        """Whether none of the unit tests notices it."""
        return self.is_let_through(mutant) and self.on(mutant, "slow") in (SURVIVED, UNCALLED)

    def is_killed(self, mutant: str) -> bool:
        """Whether some test notices it."""
        return any(self.on(mutant, layer) == KILLED for layer in LAYERS)


def _all() -> Iterator[tuple[str, str]]:
    """Each mutant, with what stands for the text of the function that it changes."""
    for meta in sorted((COPY / "gateway").rglob("*.meta")):
        about = json.loads(meta.read_text())
        for mutant in about["exit_code_by_key"]:
            yield mutant, about["hash_by_function_name"][function_of(mutant).rpartition(".")[2]]


def package_of(mutant: str) -> str:
    """`memory`, `broker` or `fanout`."""
    return mutant.split(".")[1]


def module_of(mutant: str) -> str:
    """As `memory/ring`."""
    return "/".join(mutant.split(".")[1:3])


def function_of(mutant: str) -> str:
    """The name under which mutmut notes which tests call the function."""
    return mutant.rpartition("__mutmut_")[0]
