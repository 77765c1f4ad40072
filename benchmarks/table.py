"""The tables: for a terminal and for a page."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from benchmarks.aims import Verdict
from benchmarks.measurement import Figures

HEADINGS = (
    "row", "deliveries/s", "lost", "p50", "p90", "p99", "p99.9 ms",
    "CPU µs/delivery", "of nginx", "together", "memory kB/conn.", "of nginx", "connects/s", "CPU µs/connect",
    "bytes/delivery",
)  # fmt: skip


def cells(name: str, figures: Figures) -> list[str]:
    """One row, as text."""
    one = figures
    falls_behind = "" if one.keeps_up else " ¹"
    beside = "" if one.bystander_p99 is None else f" ({one.bystander_p99:.1f})"
    return [
        name + falls_behind,
        f"{one.deliveries_per_second:,.0f}",
        f"{one.lost:,} of {one.expected:,}" if one.lost else "0",
        f"{one.p50:.1f}",
        f"{one.p90:.1f}",
        f"{one.p99:.1f}{beside}",
        f"{one.p999:.1f}",
        f"{one.cpu:.1f}",
        "–" if one.proxy_cpu is None else f"{one.proxy_cpu:.1f}",
        f"{one.cpu_together:.1f}",
        f"{one.memory / 1000:.1f}",
        "–" if one.proxy_memory is None else f"{one.proxy_memory / 1000:.1f}",
        f"{one.connects_per_second:,.0f}",
        f"{one.connect_cpu:.0f}",
        f"{one.bytes_per_delivery:,.0f}",
    ]


def notes(rows: Mapping[str, Figures]) -> list[str]:
    """Sentences without which a table would be read wrongly."""
    said = []
    if not all(one.keeps_up for one in rows.values()):
        said.append(
            "¹ cannot keep up with this load on one core: latencies are those of a growing backlog, and CPU is that "
            "of a quarter of the load."
        )
    if any(one.bystander_p99 is not None for one in rows.values()):
        said.append("In brackets: p99 of the 10 streams beside the broadcast.")
    faults = {name: one.faults for name, one in rows.items() if one.faults}
    if faults:
        said.append(
            "Repeated, reordered, ended or told of a gap: "
            + ", ".join(f"{name} {n:,}" for name, n in faults.items())
            + "."
        )
    costs = {name: one.opening_cost for name, one in rows.items() if one.opening_cost}
    if costs:
        said.append("Opening took Redis " + "; ".join(f"{name}: {cost}" for name, cost in costs.items()) + ".")
    others, reader = max(one.others for one in rows.values()), max(one.reader for one in rows.values())
    said.append(
        f"Others used at most {others:.0%} of the server's core, the busiest reader at most {reader:.0%} of its own."
    )
    return said


def scenario_table(title: str, rows: Mapping[str, Figures]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for name, one in rows.items():
        table.add_row(*cells(name, one))
    return table


def aims_table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="Aims", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("aim", "measured", "reached"):
        table.add_column(heading)
    for one in verdicts:
        table.add_row(one.aim.text, one.measured, said(one))
    return table


def said(verdict: Verdict) -> str:
    """Whether it is reached, in a word or two."""
    return {True: "yes", False: "NO", None: "not measured"}[verdict.reached]


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a page; numbers are in all columns but the first."""
    lines = [list(headings), ["---"] + ["---:"] * (len(headings) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
