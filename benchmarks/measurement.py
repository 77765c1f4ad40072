"""One row under one scenario, once; and the figures of several such rounds."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from benchmarks.opening_cost import OpeningCost, opening_cost
from benchmarks.scenario import DRAIN_LIMIT, Scenario
from gateway.bench.comparison import QUIET, warm_up
from gateway.bench.machine import readers
from gateway.bench.result import Opening, Result, opening_as_json
from gateway.bench.session import Progress, Session, Target

_KEEPS_UP = 1.1
"""A row keeps up with a load if its deliveries end within this many times the time of publishing."""


@dataclass(frozen=True)
class Measurement:
    """What one round found.

    Attributes:
        opening, result: of the load.
        bystander: the result of the streams that only took the time.
        quiet: the result of a quarter of the load, where the whole was too much.
        opening_cost: what it took of Redis to open the streams, where the scenario asks for it.
    """

    opening: Opening
    result: Result
    bystander: Result | None = None
    quiet: Result | None = None
    opening_cost: OpeningCost | None = None

    @property
    def results(self) -> Sequence[Result]:
        """Of all that was published: nothing of it may be lost."""
        return [one for one in (self.result, self.bystander, self.quiet) if one is not None]

    @property
    def closed(self) -> int:
        """Streams that ended; a second load through the same ones counts them again."""
        beside = self.bystander.closed if self.bystander else 0
        return beside + (self.quiet or self.result).closed

    def as_json(self) -> dict[str, Any]:
        return {
            "opening": opening_as_json(self.opening),
            "result": self.result.as_json(),
            "bystander": self.bystander.as_json() if self.bystander else None,
            "quiet": self.quiet.as_json() if self.quiet else None,
            "opening_cost": vars(self.opening_cost) if self.opening_cost else None,
        }


async def measure(target: Target, scenario: Scenario, cores: Collection[int], progress: Progress) -> Measurement:
    """One row, once."""
    load = replace(scenario.load, processes=max(scenario.load.processes, readers(scenario.load.streams)))
    await warm_up(target, load, cores, progress)
    async with Session(target, load, cores, progress) as session:
        if scenario.bystander is None:
            before = opening_cost(target) if scenario.counts_opening else None
            opening = await session.open()
            after = opening_cost(target) if before else None
            result = await session.publish(load.rate, load.duration, DRAIN_LIMIT)
            quiet = None
            if result.seconds > load.duration * _KEEPS_UP and not result.lost:
                quiet = await session.publish(load.rate * QUIET, load.duration, DRAIN_LIMIT)
            cost = after.since(before) if before and after else None
            return Measurement(opening, result, quiet=quiet, opening_cost=cost)
        beside = scenario.bystander
        async with Session(target, beside, cores, lambda *_: None) as other:
            await other.open()
            opening = await session.open()
            result, its = await asyncio.gather(
                session.publish(load.rate, load.duration, DRAIN_LIMIT),
                other.publish(beside.rate, beside.duration, DRAIN_LIMIT),
            )
            return Measurement(opening, result, its)


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds of one row; sums where something was counted that must not happen.

    Attributes:
        rounds: how many.
        expected, received, lost: deliveries, over all rounds.
        faults: repeated and reordered deliveries, streams that ended, and gaps that streams were told of, over all
            rounds.
        keeps_up: whether deliveries ended about when publishing did.
        deliveries_per_second: in the median round.
        p50, p90, p99, p999: milliseconds.
        cpu, proxy_cpu: microseconds per delivery, of the server and of nginx in front of it. Of a row that can't keep
            up: under a quarter of the load, for in a backlog deliveries are joined and seem to cost less.
        cpu_per_message: microseconds of both per published message.
        memory, proxy_memory: bytes per connection.
        connects_per_second: from the first connect to the last stream's first bytes.
        connect_cpu: microseconds of both per stream that was opened.
        bystander_p99: milliseconds.
        bytes_per_delivery: what a client reads, HTTP's framing included.
        others: the largest share of the server's core that was used by somebody else.
        reader: the largest share of its core that a reader used.
        opening_cost: of the round with the median number of commands; None where it was not counted.
    """

    rounds: int
    expected: int
    received: int
    lost: int
    faults: int
    keeps_up: bool
    deliveries_per_second: float
    p50: float
    p90: float
    p99: float
    p999: float
    cpu: float
    proxy_cpu: float | None
    cpu_per_message: float
    memory: float
    proxy_memory: float | None
    connects_per_second: float
    connect_cpu: float
    bystander_p99: float | None
    bytes_per_delivery: float
    others: float
    reader: float
    opening_cost: OpeningCost | None = None

    @property
    def cpu_together(self) -> float:
        """Microseconds per delivery of the server and what stands in front of it."""
        return self.cpu + (self.proxy_cpu or 0.0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(scenario: Scenario, rounds: Sequence[Measurement]) -> Figures:
    """The figures of a row."""
    results = [one.result for one in rounds]
    every = [result for one in rounds for result in one.results]

    def middle(value: Callable[[Measurement], float | None]) -> float:
        return median(value(one) or 0.0 for one in rounds)

    def optional(value: Callable[[Measurement], float | None]) -> float | None:
        return None if value(rounds[0]) is None else middle(value)

    return Figures(
        rounds=len(rounds),
        expected=sum(one.expected for one in every),
        received=sum(one.received for one in every),
        lost=sum(one.lost for one in every),
        faults=sum(one.duplicates + one.out_of_order + one.gaps for one in every) + sum(one.closed for one in rounds),
        keeps_up=median(one.seconds for one in results) <= scenario.load.duration * _KEEPS_UP,
        deliveries_per_second=middle(lambda one: one.result.deliveries_per_second),
        p50=middle(lambda one: one.result.latency("p50")),
        p90=middle(lambda one: one.result.latency("p90")),
        p99=middle(lambda one: one.result.latency("p99")),
        p999=middle(lambda one: one.result.latency("p99.9")),
        cpu=middle(lambda one: _micro((one.quiet or one.result).cpu_per_delivery)),
        proxy_cpu=optional(lambda one: _micro((one.quiet or one.result).proxy_cpu_per_delivery)),
        cpu_per_message=middle(
            lambda one: ((one.result.cpu or 0.0) + (one.result.proxy_cpu or 0.0)) * 1e6 / scenario.load.messages
        ),
        memory=middle(lambda one: one.opening.memory),
        proxy_memory=optional(lambda one: one.opening.proxy_memory),
        connects_per_second=middle(lambda one: one.opening.rate),
        connect_cpu=middle(lambda one: _micro(one.opening.cpu_per_connect)),
        bystander_p99=optional(lambda one: one.bystander.latency("p99") if one.bystander else None),
        bytes_per_delivery=middle(lambda one: one.result.bytes_per_delivery),
        others=max(one.result.others_share or 0.0 for one in rounds),
        reader=max(one.result.reader_share for one in rounds),
        opening_cost=_median_cost([one.opening_cost for one in rounds if one.opening_cost]),
    )


def _median_cost(costs: Sequence[OpeningCost]) -> OpeningCost | None:
    ordered = sorted(costs, key=lambda one: one.total)
    return ordered[len(ordered) // 2] if ordered else None


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6
