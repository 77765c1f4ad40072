"""What the figures should be, held against what they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measurement import Figures

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

AIMS: Sequence[Aim] = (
    *_cpu_aim("a"),
    *_cpu_aim("b"),
    Aim(
        "(c) deliveries/s on one core ≥ 300,000, nothing lost",
        "c",
        # The load itself is 300,000 per second; the last deliveries come a few milliseconds after the last message.
        (Part("direct", lambda figures: figures.deliveries_per_second, 297_000, at_least=True), _LOST),
        "{:,.0f}",
    ),
    Aim(
        "(c) deliveries/s ≥ Nchan's",
        "c",
        (Part("direct", lambda figures: figures.deliveries_per_second, 0.99, at_least=True, reference="nchan"),),
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
        "(i) p99 of the small channel ≤ 15 ms", "i", (Part("direct", lambda figures: figures.bystander_p99, 15.0),),
        "{:.1f} ms",
    ),
    Aim(
        "(g) 20,000 messages/s taken in, nothing lost",
        "g",
        (Part("direct", lambda figures: float(figures.keeps_up), 1, at_least=True), _LOST),
        "keeps up: {:.0f}",
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
            yield _verdict(aim, found[aim.scenario])


def _verdict(aim: Aim, rows: Mapping[str, Figures]) -> Verdict:
    measured = ""
    reached = True
    for part in aim.parts:
        value = part.value(rows[part.row]) if part.row in rows else None
        limit: float | None = part.limit
        if part.reference:
            other = part.value(rows[part.reference]) if part.reference in rows else None
            limit = other * part.limit if other else None
        if value is None or limit is None:
            return Verdict(aim, "–", None)
        if not measured:
            measured = aim.form.format(value)
            if part.reference:
                measured += f" ({value / limit * part.limit:.2f} × {part.reference})"
        reached = reached and (value >= limit if part.at_least else value <= limit)
    return Verdict(aim, measured, reached)
