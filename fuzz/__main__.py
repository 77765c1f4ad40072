"""`python -m fuzz`: play generated cases against each target, and print the table of docs/security.md."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from chaos.document import SECURITY, dated, write
from fuzz import coverage, decoding
from fuzz.case import Case, Failure, load, save
from fuzz.run import Result, generated, play
from fuzz.targets import TARGETS

_CASES = 250_000
_FAILED = Path(".fuzz")
"""Where cases that fail are written."""
_COLUMNS = ["target", "cases", "what came of them", "memory grown", "seconds", "failed"]
_MIB = 1_048_576
_PRINTED = 5

Progressing = Callable[[int], None]


@click.command()
@click.option("--cases", default=_CASES, show_default=True, help="How many, over all targets.")
@click.option("--seed", default=1, show_default=True, help="The same cases come for the same seed.")
@click.option("--only", default="", help="Only targets whose name contains one of these, with commas.")
@click.option("--case", "numbers", default="", help="Only this case of the one target, or these: 17 or 17-99.")
@click.option("--replay", type=click.Path(exists=True, path_type=Path), help="Only the case in this file.")
@click.option("--write", "into_docs", is_flag=True, help="Write the table into docs/security.md.")
@click.pass_context
def main(
    context: click.Context, cases: int, seed: int, only: str, numbers: str, replay: Path | None, into_docs: bool
) -> None:
    """Play generated cases against workers, and look at what they must never do."""
    if into_docs and (only or numbers or replay):
        raise click.UsageError("--write is for the whole table.")
    console = Console(stderr=True)
    if replay is not None:
        results = [_replayed(*load(replay))]
    else:
        chosen = {name: it for name, it in runs(cases, seed).items() if any(word in name for word in only.split(","))}
        if numbers:
            chosen = _only_these(list(chosen), seed, numbers)
        results = []
        for name, (count, run) in chosen.items():
            with _progress(console, name, count) as progress:
                results.append(run(progress))
            _explain(console, results[-1], seed)
    if not coverage.is_installed():
        console.print("atheris is not installed here: nothing was guided by coverage")
    Console(width=None if Console().is_terminal else 150).print(_terminal(results))
    if into_docs:
        write("fuzzing", _markdown(results, cases, seed), SECURITY)
    context.exit(any(result.failures for result in results))


def runs(cases: int, seed: int) -> dict[str, tuple[int, Callable[[Progressing], Result]]]:
    """By name: how many cases, and what plays them."""
    shares = {target.name: target.share for target in TARGETS} | {decoding.NAME: decoding.SHARE}
    counts = {name: max(1, cases * share // sum(shares.values())) for name, share in shares.items()}
    found: dict[str, tuple[int, Callable[[Progressing], Result]]] = {}
    for target in TARGETS:
        made = target()
        count = counts[target.name]
        found[target.name] = (count, functools.partial(play, made, generated(made, seed, range(count))))
    found[decoding.NAME] = (counts[decoding.NAME], functools.partial(decoding.play, counts[decoding.NAME], seed))
    if coverage.is_installed():
        found[decoding.GUIDED] = (cases, functools.partial(decoding.play_guided, cases, seed))
    return found


def _only_these(names: list[str], seed: int, numbers: str) -> dict[str, tuple[int, Callable[[Progressing], Result]]]:
    target = next((each for each in TARGETS if [each.name] == names), None)
    if target is None:
        raise click.UsageError("--case is for one target, which --only has to name.")
    first, _, last = numbers.partition("-")
    wanted = range(int(first), int(last or first) + 1)
    made = target()
    return {target.name: (len(wanted), functools.partial(play, made, generated(made, seed, wanted)))}


def _replayed(name: str, case: Case) -> Result:
    if name == decoding.NAME:
        return Result(name, "", 1, failures=decoding.replay(case))
    return play(next(target for target in TARGETS if target.name == name)(), [case])


@contextmanager
def _progress(console: Console, name: str, count: int) -> Iterator[Progressing]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=count)
        yield lambda done: progress.advance(task, done)


def _explain(console: Console, result: Result, seed: int) -> None:
    console.print(f"{result.name}: {len(result.failures) or 'none'} of {result.cases} failed", highlight=False)
    for failure in result.failures[:_PRINTED]:
        console.print(f"  {failure.what[:1500]}", markup=False, highlight=False)
        console.print(f"  {_command(result.name, failure, seed)}", markup=False, highlight=False)


def _command(name: str, failure: Failure, seed: int) -> str:
    """How to see it again."""
    case = failure.case
    if case is None:
        return f"python -m fuzz --seed {seed} --only '{name}'"
    if case.content is None:
        return f"python -m fuzz --seed {seed} --only '{name}' --case {case.name}"
    file = save(decoding.NAME if name == decoding.GUIDED else name, case, _FAILED)
    return f"python -m fuzz --replay '{file}'"


def _cells(result: Result) -> list[str]:
    shown = [] if result.name in (decoding.NAME, decoding.GUIDED) else result.counts.most_common()
    return [
        result.name,
        f"{result.cases:,}",
        ", ".join(f"{name}: {count:,}" for name, count in shown if count),
        f"{result.grown / _MIB:.0f} MiB" if result.grown else "",
        f"{result.seconds:.0f}",
        f"{len(result.failures) or 'none'}",
    ]


def _terminal(results: list[Result]) -> Table:
    table = Table(title="What came of the cases")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("target", "what came of them") else "right")
    for result in results:
        table.add_row(*_cells(result))
    return table


def _markdown(results: list[Result], cases: int, seed: int) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} |", "| --- | ---: | --- | ---: | ---: | ---: |"]
    lines += [f"| {' | '.join(_cells(result))} |" for result in results]
    total = sum(result.cases for result in results)
    lines += ["", f"{total:,} cases: `python -m fuzz --cases {cases} --seed {seed} --write`.", ""]
    return dated("\n".join(lines), [f"{result.name}: {result.what}" for result in results])


if __name__ == "__main__":
    main(prog_name="python -m fuzz")
