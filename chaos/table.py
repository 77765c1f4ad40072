"""The table: for a terminal, and as Markdown for the documentation."""

from collections.abc import Iterable

from rich.table import Table

from chaos.columns import QUIET
from chaos.row import Result

_HEADINGS = (
    "what breaks",
    "clients",
    "deliveries due",
    "lost",
    "unexplained",
    "unannounced",
    "twice",
    "out of order",
    "told of a gap",
    "needlessly",
    "gave up",
    "silence",
    "as promised",
)


def lines(result: Result) -> list[list[str]]:
    """A line for each column."""
    table: list[list[str]] = []
    for column, account in result.accounts.items():
        wrong = any(fault.startswith(f"{column}: ") for fault in result.faults)
        counts = (
            account.due,
            account.lost,
            account.unexplained + account.forgotten,
            account.unannounced,
            account.duplicated,
            account.disordered,
        )
        table.append(
            [
                "" if table else result.row.name,
                column,
                *(f"{count:,}" for count in counts),
                f"{account.told:,} of {account.clients:,}",
                f"{account.uncalled:,}",
                f"{account.closed:,}",
                # A quiet client hears nothing most of the time.
                "–" if column == QUIET else f"{account.silence:.1f} s",
                "no" if wrong else "yes",
            ]
        )
    return table


def terminal(results: Iterable[Result]) -> Table:
    table = Table(show_edge=False, header_style="bold")
    for index, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if index < 2 else "right")
    for result in results:
        for line in lines(result):
            table.add_row(*line, style="red" if result.faults else "")
    return table


def markdown(results: Iterable[Result]) -> str:
    rows = [list(_HEADINGS), ["---", "---", *["--:"] * (len(_HEADINGS) - 2)]]
    rows += [line for result in results for line in lines(result)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def remarks(results: Iterable[Result]) -> list[str]:
    """What was measured beside the table, and what is not as promised."""
    return [
        f"{result.row.name}: {text}"
        for result in results
        for text in (*result.notes, *(f"NOT AS PROMISED: {fault}" for fault in result.faults))
    ]
