"""What the figures should be, held against what they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measurement import Figures
from benchmarks.scenario import SCENARIOS

Found = Mapping[str, Mapping[str, Figures]]
"""Figures by the letter of the scenario and the name of the row."""


@dataclass(frozen=True)
class Part:
    """One inequality: a figure, and what it may be at most or must be at least."""

    row: str
    value: Callable[[Figures], float | None]
    limit: float
    at_least: bool = False
    reference: str = ""
    """The limit is this many times the same figure of this row; empty: it is the limit itself."""
    reference_scenario: str = ""
    """Where that row is; empty: in the aim's own scenario."""
    more: float = 0.0
    """The limit is so much more than that."""


@dataclass(frozen=True)
class Aim:
    """One line of the table of aims."""

    text: str
    scenario: str
    parts: tuple[Part, ...]
    form: str = "{:.1f} µs"


@dataclass(frozen=True)
class Verdict:
    """How one aim was met; `reached` is None where a row it needs was not measured."""

    aim: Aim
    measured: str
    reached: bool | None


def _cpu(figures: Figures) -> float:
    return figures.cpu_together


def _memory(figures: Figures) -> float:
    return figures.memory / 1000


def _nothing_lost(figures: Figures) -> float:
    return float(figures.lost + figures.faults)


def _cpu_aim(scenario: str) -> tuple[Aim, ...]:
    return tuple(
        Aim(
            f"({scenario}) CPU per delivery ≤ {limit} × {row}",
            scenario,
            (Part("direct", _cpu, limit, reference=row),),
        )
        for row, limit in (("limit", 1.25), ("nchan", 0.85), ("tutorial", 0.25))
    )


_LOST = Part("direct", _nothing_lost, 0)

_KEPT_UP = 0.99
"""The generator offers so many messages per second and no more, so no row can deliver more than that. A rate is taken
from the first publish to the last arrival, which comes some milliseconds after the last publish: a row that lags by
1 % of the publishing (50 ms of 5 s) at its end has kept up."""


def _kept_up(scenario: str, text: str, per: int = 1) -> Aim:
    """Everything that was offered is delivered when publishing ends.

    Args:
        scenario: its letter.
        text: says what is offered; what was measured is shown beside it.
        per: deliveries that are one of what the text counts.
    """
    load = SCENARIOS[scenario].load
    streams = load.streams if load.all_channels else load.streams / load.channels
    offered = load.rate * streams / per
    rate = Part("direct", lambda figures: figures.deliveries_per_second / per, offered * _KEPT_UP, at_least=True)
    return Aim(f"({scenario}) {text}, nothing lost", scenario, (rate, _LOST), f"{{:,.0f}} of {offered:,.0f} offered")


AIMS: Sequence[Aim] = (
    *_cpu_aim("a"),
    *_cpu_aim("b"),
    _kept_up("c", "300,000 deliveries/s on one core"),
    Aim(
        "(c) deliveries/s ≥ Nchan's",
        "c",
        # Both are offered the same: where both keep up, which one is ahead by a few milliseconds is chance.
        (Part("direct", lambda figures: figures.deliveries_per_second, _KEPT_UP, at_least=True, reference="nchan"),),
        "{:,.0f}",
    ),
    Aim(
        "(a) p99 ≤ Nchan's",
        "a",
        (Part("direct", lambda figures: figures.p99, 1.0, reference="nchan"),),
        "{:.0f} ms",
    ),
    Aim("(b) memory per connection ≤ 3 kB", "b", (Part("direct", _memory, 3.0),), "{:.1f} kB"),
    Aim(
        "(h) connects/s ≥ 10,000, all served",
        "h",
        (Part("direct", lambda figures: figures.connects_per_second, 10_000, at_least=True), _LOST),
        "{:,.0f}",
    ),
    Aim(
        "(h) connects/s with a token ≥ 0.6 × without, all served",
        "h",
        (
            Part("direct token", lambda figures: figures.connects_per_second, 0.6, at_least=True, reference="direct"),
            Part("direct token", _nothing_lost, 0),
        ),
        "{:,.0f}",
    ),
    Aim(
        "(h) CPU per connect with a token ≤ 150 µs more than without",
        "h",
        (Part("direct token", lambda figures: figures.connect_cpu, 1.0, reference="direct", more=150.0),),
        "{:.0f} µs",
    ),
    Aim(
        "(i) p99 of the small channel ≤ 15 ms beside a broadcast that keeps up, nothing lost",
        "i",
        (
            Part("direct", lambda figures: figures.bystander_p99, 15.0),
            Part("direct", lambda figures: float(figures.keeps_up), 1, at_least=True),
            _LOST,
        ),
        "{:.1f} ms",
    ),
    _kept_up("g", "20,000 messages/s taken in by one worker", per=5),
    Aim(
        "(j) gzip: bytes per delivery ≤ 0.45 × without, nothing lost",
        "j",
        (
            Part("direct gzip", lambda figures: figures.bytes_per_delivery, 0.45, reference="direct"),
            Part("direct gzip", _nothing_lost, 0),
        ),
        "{:,.0f}",
    ),
    Aim(
        "(j) gzip: CPU per delivery ≤ 1.1 × without",
        "j",
        (Part("direct gzip", _cpu, 1.1, reference="direct"),),
    ),
    Aim(
        "(k) CPU per delivery ≤ 1.15 × (a)'s, nothing lost",
        "k",
        (Part("direct", _cpu, 1.15, reference="direct", reference_scenario="a"), _LOST),
    ),
    Aim("behind nginx by TCP, together ≤ 20 µs", "a", (Part("direct+nginx tcp", _cpu, 20.0),)),
    Aim("behind nginx by a unix socket, together ≤ 16 µs", "a", (Part("direct+nginx unix", _cpu, 16.0),)),
    Aim(
        "behind nginx by TCP ≤ Nchan behind it",
        "a",
        (Part("direct+nginx tcp", _cpu, 1.0, reference="nchan+nginx tcp"),),
    ),
    Aim(
        "behind nginx by a unix socket ≤ Nchan behind it",
        "a",
        (Part("direct+nginx unix", _cpu, 1.0, reference="nchan+nginx tcp"),),
    ),
)  # fmt: skip


def verdicts(found: Found) -> Iterator[Verdict]:
    """Each aim whose scenario was measured, held against what was found."""
    for aim in AIMS:
        if aim.scenario in found:
            yield _verdict(aim, found)


def _verdict(aim: Aim, found: Found) -> Verdict:
    rows = found[aim.scenario]
    measured = ""
    reached = True
    for part in aim.parts:
        value = part.value(rows[part.row]) if part.row in rows else None
        limit: float | None = part.limit
        other: float | None = None
        if part.reference:
            others = found.get(part.reference_scenario or aim.scenario, {})
            other = part.value(others[part.reference]) if part.reference in others else None
            limit = other * part.limit + part.more if other else None
        if value is None or limit is None:
            return Verdict(aim, "–", None)
        if not measured:
            measured = aim.form.format(value)
            if other:
                where = f" in ({part.reference_scenario})" if part.reference_scenario else ""
                measured += f" ({value / other:.2f} × {part.reference}{where})"
        reached = reached and (value >= limit if part.at_least else value <= limit)
    return Verdict(aim, measured, reached)
