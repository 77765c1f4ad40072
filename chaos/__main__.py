"""`python -m chaos`: the table. `python -m chaos soak`: for long."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console

from chaos import document, table
from chaos.row import Result, play
from chaos.rows import ROWS
from chaos.soak import soak


@click.group(invoke_without_command=True)
@click.option("--rows", default="", help="Only rows whose name contains one of these, separated by commas.")
@click.option("--streams", type=click.IntRange(100), help="Streams of each row, instead of 500 (and 5,000 to drain).")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was counted, as JSON.")
@click.option("--write", is_flag=True, help="Write the table into docs/reliability.md.")
@click.option("--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs of each row here.")
@click.pass_context
def main(
    context: click.Context, rows: str, streams: int | None, as_json: bool, write: bool, logs: Path | None
) -> None:
    """Break one thing after the other under a running gateway, and count what each client lost."""
    if context.invoked_subcommand is not None:
        return
    if write and (rows or streams):
        raise click.UsageError("--write is for the whole table, without --rows and --streams.")
    console = Console(stderr=True)
    wanted = [row for row in ROWS if any(part.lower() in row.name.lower() for part in rows.split(","))]
    results: list[Result] = []
    for number, row in enumerate(wanted, 1):
        if reason := row.impossible():
            console.print(f"{row.name}: left out, {reason}", highlight=False, soft_wrap=True)
            continue
        directory = None if logs is None else logs / f"{number:02}"
        if directory is not None:
            directory.mkdir(parents=True)
        with console.status(f"{number} of {len(wanted)}: {row.name}"):
            result = play(row, streams, directory)
        results.append(result)
        console.print(f"{row.name}: {'; '.join(result.faults[:3]) or 'as promised'}", highlight=False, soft_wrap=True)
    if as_json:
        click.echo(json.dumps([_plain(result) for result in results], indent=1))
    else:
        output = Console(width=None if Console().is_terminal else 170)
        output.print(table.terminal(results))
        for remark in table.remarks(results):
            output.print(remark, highlight=False, soft_wrap=True)
    if write:
        document.write("table", document.dated(table.markdown(results), table.remarks(results)))
    context.exit(any(result.faults for result in results))


def _plain(result: Result) -> dict[str, object]:
    return {
        "row": result.row.name,
        "accounts": {
            # A Counter is no mapping to `asdict`.
            column: {**asdict(replace(account, reasons=Counter())), "reasons": account.reasons}
            for column, account in result.accounts.items()
        },
        "faults": result.faults,
        "notes": result.notes,
    }


main.add_command(soak)

if __name__ == "__main__":
    main(prog_name="python -m chaos")
