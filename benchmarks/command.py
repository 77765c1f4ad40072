"""The command line."""

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import against, capacity, document, hundred_thousand, program
from benchmarks.aims import verdicts
from benchmarks.chart import chart
from benchmarks.comparison import Comparison, stage
from benchmarks.machine import machine
from benchmarks.rows import ROWS
from benchmarks.scenario import SCENARIOS
from benchmarks.table import aims_table, markdown, notes, scenario_table
from gateway.bench.progress import progress_bar


def _letters(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    letters = [letter.strip() for letter in value.split(",") if letter.strip()]
    if unknown := [letter for letter in letters if letter not in SCENARIOS]:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(SCENARIOS)}.")
    return letters


_PROGRAM = click.Path(exists=True, dir_okay=False, executable=True, resolve_path=True, path_type=Path)


@click.group(invoke_without_command=True)
@click.option(
    "--scenario",
    "letters",
    default="",
    callback=_letters,
    help=f"Letters, with commas between.  [default: {','.join(SCENARIOS)}; --against: {','.join(against.LETTERS)}]",
)
@click.option("--row", "rows", multiple=True, type=click.Choice(list(ROWS)), help="Only this row; repeatable.")
@click.option("--rounds", type=click.IntRange(1, 99), default=3, show_default=True, help="Of each row.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option(
    "--charts", type=click.Path(file_okay=False, path_type=Path), help="Write a chart of each scenario into there."
)
@click.option("--write", is_flag=True, help="Put tables, charts and figures into docs/, too.")
@click.option(
    "--against",
    "checkout",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Measure the gateway of this other checkout, and ours, in turn, and nothing else.",
)
@click.option("--mercure", type=_PROGRAM, help="The program.  [default: the one on PATH]")
@click.option("--centrifugo", type=_PROGRAM, help="The program.  [default: the one on PATH]")
@click.pass_context
def main(
    ctx: click.Context,
    letters: list[str],
    rows: tuple[str, ...],
    rounds: int,
    json_file: Path | None,
    charts: Path | None,
    write: bool,
    checkout: Path | None,
    mercure: Path | None,
    centrifugo: Path | None,
) -> None:
    """Measure the gateway beside its peers and beside the kernel's limit, in one run.

    The server has one core, the load another. Rows take turns, round by round. Every event of every stream is
    checked. The exit status is 1 if the gateway lost, repeated or reordered one.

    \b
    python -m benchmarks --scenario a            4,000 streams: all rows
    python -m benchmarks --scenario b,c --rounds 1
    python -m benchmarks --against ../before     two versions, A B A B, and their ratios
    python -m benchmarks hundred-thousand        100,000 streams through nginx
    python -m benchmarks capacity                the costs docs/capacity.md reckons with, and whether it is right
    """
    if ctx.invoked_subcommand is not None:
        return
    if checkout is not None:
        _check_other(checkout, rows, write or charts is not None)
    programs = program.installed({"mercure": mercure, "centrifugo": centrifugo})
    letters = letters or list(SCENARIOS if checkout is None else against.LETTERS)
    comparison = Comparison(letters, rows, rounds, against.rows(checkout) if checkout else None)
    with stage(programs) as ground:
        with progress_bar() as progress:
            comparison.run(ground, progress)
        about = {**machine(ground.directory, programs), "listen queues": ground.listen_queue}
    if checkout is None:
        _show(comparison, ground.listen_queue)
    else:
        _show_ratios(comparison, ground.listen_queue)
    if json_file:
        _write_json(json_file, comparison, about)
    if charts:
        _write_charts(charts, comparison)
    if write:
        names = _write_charts(document.DOCS / "benchmarks", comparison)
        _write_json(document.DOCS / "benchmarks" / "results.json", comparison, about)
        text = document.results(
            comparison.found, list(verdicts(comparison.found)), about, command_line(), today(),
            [f"benchmarks/{name}" for name in names],
        )  # fmt: skip
        document.rewrite(document.DOCS / "benchmarks.md", "results", text)
    ctx.exit(0 if comparison.complete else 1)


@main.command("hundred-thousand")
@click.option("--streams", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True)
@click.option("--rate", type=click.FloatRange(0.01, 100), default=1.0, show_default=True, help="Messages/s to all.")
@click.option("--duration", type=click.FloatRange(1, 3600), default=60.0, show_default=True, help="Seconds.")
@click.option("--edge/--no-edge", default=True, help="Through nginx, or straight to the workers.  [default: --edge]")
@click.option("--write", is_flag=True, help="Put the figures into docs/benchmarks.md, too.")
@click.pass_context
def _hundred_thousand(
    ctx: click.Context, streams: int, rate: float, duration: float, edge: bool, write: bool
) -> None:
    """Open 100,000 streams, publish to all of them, and reconcile."""
    plan = hundred_thousand.plan(streams, rate, duration, edge)
    with progress_bar() as progress:
        found = hundred_thousand.run(plan, progress)
    shown = hundred_thousand.rows(plan, found)
    table = Table(show_header=False, box=box.SIMPLE)
    for name, value in shown.items():
        table.add_row(name, value)
    console().print(table)
    if write:
        text = f"Measured {today()} by `{command_line()}`.\n\n"
        text += markdown(("", "found"), list(shown.items()))
        mark = "hundred thousand through nginx" if edge else "hundred thousand without nginx"
        document.rewrite(document.DOCS / "benchmarks.md", mark, text)
    ctx.exit(0 if found.result.complete else 1)


@main.command("capacity")
@click.option("--rounds", type=click.IntRange(1, 99), default=3, show_default=True, help="Of each load.")
@click.option("--write", is_flag=True, help="Put the tables into docs/capacity.md, too.")
def _capacity(rounds: int, write: bool) -> None:
    """Measure costs, and hold what they foretell against a load they were not made from."""
    with stage() as ground, progress_bar() as progress:
        layouts = capacity.capacity(ground, rounds, progress)
    parts = {
        "costs": (capacity.COST_HEADINGS, capacity.cost_cells(layouts)),
        "check": (capacity.CHECK_HEADINGS, capacity.check_cells(layouts)),
        "examples": (capacity.NEED_HEADINGS, capacity.need_cells(layouts)),
    }
    for headings, lines in parts.values():
        table = Table(box=box.SIMPLE_HEAD)
        for heading in headings:
            table.add_column(heading)
        for line in lines:
            table.add_row(*line)
        console().print(table)
    if write:
        for name, (headings, lines) in parts.items():
            text = f"By `{command_line()}`, {today()}.\n\n{markdown(headings, lines)}"
            document.rewrite(document.DOCS / "capacity.md", name, text)


def command_line() -> str:
    """What was typed."""
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def console() -> Console:
    """Standard output, wide enough for the tables where it is a file."""
    shown = Console(highlight=False)
    return shown if shown.is_terminal else Console(width=170, highlight=False)


def _show(comparison: Comparison, listen_queue: str) -> None:
    out = console()
    for letter, rows in comparison.found.items():
        out.print(scenario_table(f"({letter}) {SCENARIOS[letter].title}", rows))
        for sentence in notes(rows):
            out.print(sentence, soft_wrap=True)
    for name, why in comparison.left_out.items():
        out.print(f"Left out: {name}. {why}", soft_wrap=True)
    out.print(listen_queue, soft_wrap=True)
    if judged := list(verdicts(comparison.found)):
        out.print(aims_table(judged))


def _check_other(checkout: Path, rows: tuple[str, ...], written: bool) -> None:
    if not (checkout / "gateway" / "__main__.py").is_file():
        raise click.UsageError(f"--against {checkout}: there is no gateway in it.")
    if rows or written:
        raise click.UsageError("--against has rows and a table of its own; leave out --row, --charts and --write.")


def _show_ratios(comparison: Comparison, listen_queue: str) -> None:
    out = console()
    out.print(against.table(against.cells(comparison.measured)))
    found = comparison.found
    for sentence in filter(None, (against.own_channels(found), listen_queue)):
        out.print(sentence, soft_wrap=True)
    for letter, sides in found.items():
        for sentence in notes(sides):
            out.print(f"({letter}) {sentence}", soft_wrap=True)


def _write_json(path: Path, comparison: Comparison, about: Any) -> None:
    content = {"command": command_line(), "date": today(), "machine": about, "scenarios": comparison.as_json()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _write_charts(directory: Path, comparison: Comparison) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for letter, rows in comparison.found.items():
        names.append(f"cpu-{letter}.svg")
        (directory / names[-1]).write_text(chart(f"({letter}) {SCENARIOS[letter].title}", rows))
    return names
