"""All rounds of all rows of some scenarios."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from benchmarks.measurement import Figures, Measurement, figures, measure
from benchmarks.rows import ROWS, Row, missing
from benchmarks.scenario import SCENARIOS
from benchmarks.stage import Stage
from gateway.bench import server
from gateway.bench.listen_queue import long_listen_queues
from gateway.bench.machine import orderly_end, split_cores
from gateway.bench.session import Progress


@contextmanager
def stage(programs: Mapping[str, Path] = MappingProxyType({})) -> Iterator[Stage]:
    """A place for a run: pinned, with a Redis and a directory of its own.

    Args:
        programs: where peers are that can't be had by themselves.
    """
    with ExitStack() as stack:
        stack.enter_context(orderly_end())
        listen_queue = stack.enter_context(long_listen_queues())
        server_cores, load_cores = stack.enter_context(split_cores())
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-benchmarks-")))
        redis_url = stack.enter_context(server.redis_server(load_cores))
        yield Stage(redis_url, frozenset(server_cores), frozenset(load_cores), directory, listen_queue, programs)


class Comparison:
    """The rows under each scenario, round by round: A B C, A B C.

    Args:
        letters: of the scenarios.
        only: names of the rows; empty: those of the scenario.
        rounds: how often each row is measured.
        instead: rows that every scenario is put to instead of its own.
    """

    def __init__(
        self, letters: Sequence[str], only: Collection[str], rounds: int, instead: Mapping[str, Row] | None = None
    ) -> None:
        self._letters = letters
        self._only = frozenset(only)
        self._rounds = rounds
        self._instead = instead
        self.left_out: Mapping[str, str] = {}
        self.measured: dict[str, dict[str, list[Measurement]]] = {}

    def run(self, stage: Stage, progress: Progress) -> None:
        rows = ROWS if self._instead is None else self._instead
        lacking = missing(stage.directory, stage.programs) if self._instead is None else {}
        for letter in self._letters:
            scenario = SCENARIOS[letter]
            names = list(scenario.rows if self._instead is None else self._instead)
            names = [name for name in names if not self._only or name in self._only]
            self.left_out = {
                **self.left_out,
                **{name: lacking[need] for name in names for need in rows[name].needs if need in lacking},
            }
            names = [name for name in names if name not in self.left_out]
            for number in range(self._rounds):
                for name in names:

                    def tell(
                        what: str, done: int, total: int, where: str = f"({letter}) {number + 1} {name}"
                    ) -> None:
                        progress(f"{where}: {what}", done, total)

                    with rows[name].start(stage) as target:
                        found = asyncio.run(measure(target, scenario, stage.load_cores, tell))
                    self.measured.setdefault(letter, {}).setdefault(name, []).append(found)

    @property
    def found(self) -> Mapping[str, Mapping[str, Figures]]:
        return {
            letter: {name: figures(SCENARIOS[letter], rounds) for name, rounds in rows.items()}
            for letter, rows in self.measured.items()
        }

    @property
    def complete(self) -> bool:
        """Whether the gateway's rows delivered everything. The others' loss is not our failure."""
        return not any(
            one.lost or one.faults
            for rows in self.found.values()
            for name, one in rows.items()
            if name.startswith(("direct", "portable"))
        )

    def as_json(self) -> dict[str, Any]:
        return {
            letter: {
                "title": SCENARIOS[letter].title,
                "load": vars(SCENARIOS[letter].load),
                "rows": {
                    name: {
                        "figures": figures(SCENARIOS[letter], rounds).as_json(),
                        "rounds": [one.as_json() for one in rounds],
                    }
                    for name, rounds in rows.items()
                },
            }
            for letter, rows in self.measured.items()
        }
