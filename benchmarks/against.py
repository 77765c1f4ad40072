"""This gateway beside that of another checkout, in one run: A B A B."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from rich import box
from rich.table import Table

from benchmarks.measurement import Figures, Measurement, figures
from benchmarks.rows import Row, Start, gateway
from benchmarks.scenario import SCENARIOS
from benchmarks.stage import Stage
from gateway.bench import server
from gateway.bench.session import Target

LETTERS = ("a", "b", "c", "g", "h", "k", "l")
"""What is compared by default."""

BEFORE, NOW = "before", "direct"
"""The rows' names. The second is that of the gateway as it runs by default."""

_WORSE = 1.03
"""Times as much (or as little) that is called worse; what is closer is the machine's own unrest."""

HEADINGS = ("scenario", "figure", "before", "now", "ratio", "rounds", "")


@dataclass(frozen=True)
class _Figure:
    """One that is compared."""

    name: str
    value: Callable[[Figures], float | None]
    form: str
    more_is_better: bool = False


_FIGURES = (
    _Figure("CPU µs/delivery", lambda one: one.cpu, "{:.2f}"),
    _Figure("p99 ms", lambda one: one.p99, "{:.1f}"),
    _Figure("deliveries/s", lambda one: one.deliveries_per_second, "{:,.0f}", more_is_better=True),
    _Figure("memory kB/conn.", lambda one: one.memory / 1000, "{:.2f}"),
    _Figure("connects/s", lambda one: one.connects_per_second, "{:,.0f}", more_is_better=True),
    _Figure("CPU µs/connect", lambda one: one.connect_cpu, "{:.0f}"),
    _Figure("bytes/delivery", lambda one: one.bytes_per_delivery, "{:.0f}"),
    _Figure("Redis commands", lambda one: None if one.opening_cost is None else one.opening_cost.total, "{:,.0f}"),
    _Figure("ticks", lambda one: None if one.opening_cost is None else one.opening_cost.ticks, "{:,.0f}"),
)


def rows(checkout: Path) -> Mapping[str, Row]:
    """The other checkout's gateway, and ours."""
    return MappingProxyType(
        {
            BEFORE: Row(_with_its_own_redis(gateway("direct", checkout=checkout)), f"the gateway in {checkout}"),
            NOW: Row(_with_its_own_redis(gateway("direct")), "the gateway as it is here"),
        }
    )


def _with_its_own_redis(start: Start) -> Start:
    """What one version leaves in Redis must not be what the other one finds."""

    @contextmanager
    def start_both(stage: Stage) -> Iterator[Target]:
        with server.redis_server(stage.load_cores) as url, start(replace(stage, redis_url=url)) as target:
            yield target

    return start_both


def cells(measured: Mapping[str, Mapping[str, Sequence[Measurement]]]) -> list[list[str]]:
    """A line for each figure of each scenario: medians, their ratio, and the ratios of the rounds.

    Args:
        measured: rounds by the letter of the scenario and the name of the row.
    """
    lines = []
    for letter, sides in measured.items():
        scenario = SCENARIOS[letter]
        rounds = {name: [figures(scenario, [one]) for one in found] for name, found in sides.items()}
        whole = {name: figures(scenario, found) for name, found in sides.items()}
        for figure in _FIGURES:
            before, now = (figure.value(whole[name]) for name in (BEFORE, NOW))
            if before is None or now is None:
                continue
            pairs = zip(rounds[BEFORE], rounds[NOW], strict=True)
            ratios = [_ratio(figure.value(one), figure.value(other)) for one, other in pairs]
            lines.append(
                [
                    f"({letter})",
                    figure.name,
                    figure.form.format(before) + _mark(whole[BEFORE]),
                    figure.form.format(now) + _mark(whole[NOW]),
                    _shown(_ratio(before, now)),
                    " ".join(map(_shown, ratios)),
                    "worse" if _is_worse(figure, _ratio(before, now)) else "",
                ]
            )
        lines.append([f"({letter})", "lost", *(f"{whole[name].lost:,}" for name in (BEFORE, NOW)), "", "", ""])
        faults = [f"{whole[name].faults:,}" for name in (BEFORE, NOW)]
        lines.append([f"({letter})", "repeated, reordered, ended, gaps", *faults, "", "", ""])
    return lines


def own_channels(found: Mapping[str, Mapping[str, Figures]]) -> str:
    """What a channel of one's own costs beside a shared one, in a sentence; empty if that was not measured."""
    if not {"a", "k"} <= found.keys():
        return ""
    shares = (f"{name} {found['k'][name].cpu / found['a'][name].cpu:.2f}" for name in (BEFORE, NOW))
    return f"CPU per delivery in (k) is so many times that in (a): {', '.join(shares)}."


def table(lines: Sequence[Sequence[str]]) -> Table:
    """The lines for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="right" if number > 1 else "left", no_wrap=True)
    letter = ""
    for line in lines:
        if letter and line[0] != letter:
            shown.add_section()
        letter = line[0]
        shown.add_row(*line)
    return shown


def _mark(one: Figures) -> str:
    """Points to the note on rows that can't keep up, as in other tables."""
    return "" if one.keeps_up else " ¹"


def _ratio(before: float | None, now: float | None) -> float | None:
    return now / before if before and now is not None else None


def _shown(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _is_worse(figure: _Figure, ratio: float | None) -> bool:
    if ratio is None:
        return False
    return ratio * _WORSE < 1 if figure.more_is_better else ratio > _WORSE
