"""The gateway beside what the tutorials do, in one run."""

import asyncio
import platform
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from gateway.bench import server
from gateway.bench.errors import BenchError
from gateway.bench.load import Load
from gateway.bench.result import Opening, Result, opening_as_json
from gateway.bench.server import Server
from gateway.bench.session import Progress, Session, Target
from gateway.bench.table import kilobytes, microseconds

QUIET = 0.25
"""Share of the full rate at which CPU is compared: the slowest row must keep up with it, or it would be
compared while it works through a backlog."""

_KEEPS_UP = 1.1
"""A row keeps up with a load if its deliveries end within this many times the time of publishing."""

Start = Callable[[str, Collection[int]], AbstractContextManager[Server]]
"""Starts a row's server, given Redis' URL and the cores it may use."""

REFERENCE = "tutorial"


def rows() -> Mapping[str, Start]:
    """What is compared, in the order of one round."""
    if not server.TUTORIAL.is_file():
        raise BenchError(f"--compare: needs a checkout of the repository; {server.TUTORIAL} is not there.")

    def gateway(delivery: str) -> Start:
        return lambda redis_url, cores: server.worker(redis_url, cores, {"GATEWAY_DELIVERY": delivery})

    return {
        REFERENCE: server.tutorial,
        "portable": gateway("portable"),
        "direct": gateway("direct"),
    }


@dataclass(frozen=True)
class Round:
    """One row in one round: the same open streams under the quiet load, then under the full one."""

    opening: Opening
    quiet: Result
    full: Result


async def measure(target: Target, load: Load, cores: Collection[int], progress: Progress) -> Round:
    """One row, once."""
    await warm_up(target, load, cores, progress)
    async with Session(target, load, cores, progress) as session:
        opening = await session.open()
        quiet = await session.publish(load.rate * QUIET, load.duration)
        full = await session.publish(load.rate, load.duration) if not quiet.lost else quiet
    return Round(opening, quiet, full)


async def warm_up(target: Target, load: Load, cores: Collection[int], progress: Progress) -> None:
    """A few streams that come and go, so that what is loaded on first use isn't counted as theirs."""
    few = Load(streams=min(load.streams, 50), rate=20, duration=0.5)
    async with Session(target, few, cores, progress) as session:
        await session.open()
        await session.publish(few.rate, few.duration)


class Comparison:
    """All rounds of all rows.

    Args:
        load: the full load.
        rounds: how often each row is measured, in turn; the medians are shown.
    """

    def __init__(self, load: Load, rounds: int) -> None:
        self.load = load
        self.rounds = rounds
        self.measured: dict[str, list[Round]] = {}

    def run(
        self, redis_url: str, prefix: str, server_cores: Collection[int], load_cores: Collection[int],
        progress: Progress,
    ) -> None:  # fmt: skip
        starts = rows()
        for number in range(self.rounds):
            for name, start in starts.items():

                def tell(what: str, done: int, total: int, where: str = f"{number + 1}/{self.rounds} {name}") -> None:
                    progress(f"{where}: {what}", done, total)

                with start(redis_url, server_cores) as running:
                    cores = frozenset(server_cores)
                    target = Target(running.url, redis_url, prefix, (running.pid,), cores=cores)
                    round_ = asyncio.run(measure(target, self.load, load_cores, tell))
                self.measured.setdefault(name, []).append(round_)

    @property
    def complete(self) -> bool:
        """Whether the gateway's rows delivered everything. The tutorial's loss is not our failure."""
        return all(
            round_.quiet.complete and round_.full.complete
            for name, rounds in self.measured.items()
            if name != REFERENCE
            for round_ in rounds
        )

    def table(self) -> Table:
        table = Table(title=self._title(), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("\n", no_wrap=True)
        for heading in (
            "CPU per delivery\n(of tutorial's)",
            "memory per conn.\n(of tutorial's)",
            "connects\nper s",
            "latency, ms\np50 / p99",
            "full load:\nCPU",
            "deliveries\nper s",
            "latency, ms\np50 / p99",
            "lost\n",
        ):
            table.add_column(heading, justify="right", no_wrap=True)
        for name in self.measured:
            table.add_row(name, *self._cells(name))
        return table

    def remarks(self) -> list[str]:
        """Sentences on how to read the table."""
        load = self.load
        quiet = replace(load, rate=load.rate * QUIET)
        said = [
            f"CPU/delivery and the first p50 / p99: {load.streams:,} streams at {quiet.rate:g} messages/s "
            f"({load.streams * quiet.rate:,.0f} deliveries/s), which every row should carry. "
            f"full: {load.rate:g} messages/s ({load.streams * load.rate:,.0f} deliveries/s).",
        ]
        for name, rounds in self.measured.items():
            for what, rate, results in (
                ("quiet", quiet.rate, [round_.quiet for round_ in rounds]),
                ("full", load.rate, [round_.full for round_ in rounds]),
            ):
                if median(result.seconds for result in results) > load.duration * _KEEPS_UP:
                    said.append(
                        f"{name} cannot keep up with the {what} load ({load.streams * rate:,.0f} deliveries/s); "
                        "its latencies are those of a growing backlog."
                    )
        results = [result for rounds in self.measured.values() for r in rounds for result in (r.quiet, r.full)]
        said.append(
            f"The load generator's reader used at most {max(result.reader_share for result in results):.0%} of its "
            f"core, other processes at most {max(result.others_share or 0.0 for result in results):.0%} of the "
            "server's."
        )
        return said

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}",
            "load": vars(self.load),
            "quiet_rate": self.load.rate * QUIET,
            "complete": self.complete,
            "rows": {
                name: {
                    "median": self._medians(name),
                    "rounds": [
                        {
                            "opening": opening_as_json(round_.opening),
                            "quiet": round_.quiet.as_json(),
                            "full": round_.full.as_json(),
                        }
                        for round_ in rounds
                    ],
                }
                for name, rounds in self.measured.items()
            },
        }

    def _medians(self, name: str) -> dict[str, float]:
        rounds = self.measured[name]

        def middle(value: Callable[[Round], float | None]) -> float:
            return median(value(round_) or 0.0 for round_ in rounds)

        return {
            "cpu": middle(lambda r: r.quiet.cpu_per_delivery),
            "memory": middle(lambda r: r.opening.memory),
            "connects_per_second": middle(lambda r: r.opening.rate),
            "p50_ms": middle(lambda r: r.quiet.latency("p50")),
            "p99_ms": middle(lambda r: r.quiet.latency("p99")),
            "full_cpu": middle(lambda r: r.full.cpu_per_delivery),
            "full_deliveries_per_second": middle(lambda r: r.full.deliveries_per_second),
            "full_p50_ms": middle(lambda r: r.full.latency("p50")),
            "full_p99_ms": middle(lambda r: r.full.latency("p99")),
            "lost": float(sum(r.quiet.lost + r.full.lost for r in rounds)),
        }

    def _cells(self, name: str) -> list[str]:
        ours, reference = self._medians(name), self._medians(REFERENCE)

        def ratio(figure: str) -> str:
            return f"({ours[figure] / reference[figure]:.2f})" if reference[figure] else "(–)"

        return [
            f"{microseconds(ours['cpu'])} {ratio('cpu')}",
            f"{kilobytes(ours['memory'])} {ratio('memory')}",
            f"{ours['connects_per_second']:,.0f}",
            f"{ours['p50_ms']:.1f} / {ours['p99_ms']:.1f}",
            microseconds(ours["full_cpu"]),
            f"{ours['full_deliveries_per_second']:,.0f}",
            f"{ours['full_p50_ms']:.0f} / {ours['full_p99_ms']:.0f}",
            f"{ours['lost']:,.0f}",
        ]

    def _title(self) -> str:
        return (
            f"{self.load.streams:,} streams, {self.load.size} bytes, one process on one core, "
            f"medians of {self.rounds} rounds in turn"
        )
