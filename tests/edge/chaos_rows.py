"""Breaks one thing at a time under 200 real streams, and holds what each client received against what was published.

`make chaos` plays the same rows and prints the table that is in docs/reliability.md. The rows are sorted into several
test files, because files run side by side. Every row is in exactly one.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from chaos import firewall
from chaos.columns import COLUMNS
from chaos.drain import DRAIN
from chaos.row import Row, play
from chaos.rows import ROWS

_STREAMS = 200
"""Fewer than in the table, and enough that every worker has some of every kind."""

_FILES = {
    **dict.fromkeys(("worker", "one"), "worker"),
    **dict.fromkeys(("all", "rolling", "drain"), "workers"),
    "Redis": "redis",
    **dict.fromkeys(("replica", "lagging", "silent", "streams", "FLUSHALL"), "replicas"),
}
"""By the first word of a row's name; all others are about clients and nginx."""


def hold(row: Row, directory: Path) -> None:
    """Play a row; nothing may be lost in silence."""
    if reason := row.impossible():
        pytest.skip(reason)
    result = play(_small(row), directory=directory)
    assert not result.faults, "\n".join([*result.faults, *result.notes])
    # A row whose clients had nothing to receive would show nothing.
    for column in COLUMNS:
        account = result.accounts[column]
        assert account.clients >= 20
        assert account.published >= 20


def rows_of(file: str) -> list[Row]:
    """The rows that belong into test_chaos_`file`.py."""
    return [row for row in ROWS if _file(row) == file]


def _file(row: Row) -> str:
    # One run's sweep removes all rules, also those of another run that needs them still.
    if row.impossible is firewall.unavailable:
        return "firewall"
    return _FILES.get(row.name.split()[0], "clients")


def _small(row: Row) -> Row:
    plan = replace(row.plan, streams=min(row.plan.streams, _STREAMS))
    if row is DRAIN:  # which is about size
        plan = replace(plan, streams=600, rate=10, settings={"drain_window": 4, "shutdown_timeout": 10})
    return replace(row, plan=plan)
