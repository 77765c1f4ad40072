"""Measures what docs/capacity.md reckons with, and holds its formula against a load it was not made from."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

from benchmarks.costs import Costs, Demand, Need, Sample, fit, need
from benchmarks.kernel import kernel_memory
from benchmarks.rows import ROWS
from benchmarks.stage import Stage
from gateway.bench.comparison import warm_up
from gateway.bench.load import Load
from gateway.bench.result import Opening, Result
from gateway.bench.session import Progress, Session, Target

LAYOUTS: Mapping[str, float] = MappingProxyType(
    {"direct": 1 / 2, "direct+nginx unix": 3 / 4, "direct+nginx tcp": 3 / 4}
)
"""What is measured, and which share of the sockets is not the load generator's."""

# A worker, and an nginx process, that is nearly full: with more connections each delivery costs more, because their
# sockets no longer fit the processor's cache.
SMALL = Load(8_000, 5, 5)
LARGE = Load(500, 5, 5, size=50_000)
MANY = Load(10, 10_000, 5, channels=10)
HELD_OUT = Load(7_000, 3, 5, size=2_000)
"""Not used for the costs: another number of clients, another rate, another size."""


def demand(load: Load) -> Demand:
    """The load in the words of the formula."""
    return Demand(load.streams, load.rate / load.channels, load.size, load.rate)


@dataclass(frozen=True)
class Round:
    """One load, once; `kernel` is the growth of the kernel's objects per stream."""

    opening: Opening
    result: Result
    kernel: float

    def sample(self, load: Load) -> Sample:
        cpu = (self.result.cpu or 0.0) + (self.result.proxy_cpu or 0.0)
        return Sample(demand(load), cpu / load.duration)


@dataclass(frozen=True)
class Layout:
    """One layout's costs, and what they foretold of the held-out load."""

    costs: Costs
    foretold: Need
    measured: float
    """Cores."""
    lost: int
    others: float

    @property
    def error(self) -> float:
        return self.foretold.cores / self.measured - 1


def capacity(stage: Stage, rounds: int, progress: Progress) -> Mapping[str, Layout]:
    """All layouts, in turn, round by round; medians."""
    found: dict[str, dict[Load, list[Round]]] = {name: {} for name in LAYOUTS}
    for number in range(rounds):
        for name in LAYOUTS:
            for load in (SMALL, LARGE, MANY, HELD_OUT):

                def tell(what: str, done: int, total: int, where: str = f"{number + 1} {name}") -> None:
                    progress(f"{where}: {what}", done, total)

                with ROWS[name].start(stage) as target:
                    one = asyncio.run(_measure(target, load, stage.load_cores, tell))
                found[name].setdefault(load, []).append(one)
    return {name: _layout(loads, LAYOUTS[name]) for name, loads in found.items()}


async def _measure(target: Target, load: Load, cores: Collection[int], progress: Progress) -> Round:
    await warm_up(target, load, cores, progress)
    before = kernel_memory()
    async with Session(target, load, cores, progress) as session:
        opening = await session.open()
        kernel = kernel_memory().since(before).slab / load.streams
        return Round(opening, await session.publish(load.rate, load.duration), kernel)


def _layout(loads: Mapping[Load, Sequence[Round]], ours: float) -> Layout:
    def sample(load: Load) -> Sample:
        return Sample(demand(load), median(one.sample(load).cores for one in loads[load]))

    memory = median((one.opening.memory or 0.0) + (one.opening.proxy_memory or 0.0) for one in loads[SMALL])
    kernel = median(one.kernel for one in loads[SMALL]) * ours
    costs = fit(sample(SMALL), sample(LARGE), sample(MANY), memory, kernel)
    every = [one.result for rounds in loads.values() for one in rounds]
    return Layout(
        costs,
        need(costs, demand(HELD_OUT)),
        sample(HELD_OUT).cores,
        sum(one.lost for one in every),
        max(one.others_share or 0.0 for one in every),
    )


COST_HEADINGS = (
    "layout", "µs per delivery", "µs per kB of it", "µs per message and worker", "kB per connection",
    "kB of the kernel",
)  # fmt: skip
CHECK_HEADINGS = ("layout", "cores foretold", "cores measured", "off by", "lost", "others used of the core")
NEED_HEADINGS = ("connections", "messages/s to each", "bytes", "layout", "cores", "memory", "bandwidth")

EXAMPLES = (
    Demand(1_000, 1, 500, 1),
    Demand(10_000, 5, 200, 5),
    Demand(100_000, 1, 500, 1),
    Demand(1_000_000, 0.1, 500, 0.1),
    Demand(1_000_000, 1, 500, 1),
)


def cost_cells(layouts: Mapping[str, Layout]) -> list[list[str]]:
    return [
        [
            name,
            f"{one.costs.delivery * 1e6:.1f}",
            f"{one.costs.byte * 1e9:.2f}",
            f"{one.costs.message * 1e6:.0f}",
            f"{one.costs.memory / 1e3:.1f}",
            f"{one.costs.kernel / 1e3:.1f}",
        ]
        for name, one in layouts.items()
    ]


def check_cells(layouts: Mapping[str, Layout]) -> list[list[str]]:
    return [
        [
            name,
            f"{one.foretold.cores:.2f}",
            f"{one.measured:.2f}",
            f"{one.error:+.0%}",
            f"{one.lost:,}",
            f"{one.others:.0%}",
        ]
        for name, one in layouts.items()
    ]


def need_cells(layouts: Mapping[str, Layout]) -> list[list[str]]:
    rows = []
    for wanted in EXAMPLES:
        for name, layout in layouts.items():
            one = need(layout.costs, wanted)
            rows.append(
                [
                    f"{wanted.connections:,}",
                    f"{wanted.rate:g}",
                    f"{wanted.size:,}",
                    name,
                    f"{one.cores:.2f}" if one.cores < 1 else f"{one.cores:.1f}",
                    f"{one.memory / 1e9:.2f} GB",
                    f"{one.bandwidth / 1e9:.2f} Gbit/s",
                ]
            )
    return rows
