"""Breaks one thing at a time under 200 real streams, and holds what each client received against what was published.

`make chaos` plays the same rows and prints the table that is in docs/reliability.md.
"""

import subprocess
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


def small(row: Row) -> Row:
    plan = replace(row.plan, streams=min(row.plan.streams, _STREAMS))
    if row is DRAIN:  # which is about size
        plan = replace(plan, streams=600, rate=10, settings={"drain_window": 4, "shutdown_timeout": 10})
    return replace(row, plan=plan)


@pytest.mark.parametrize("row", [small(row) for row in ROWS], ids=lambda row: row.name)
def test_nothing_is_lost_in_silence(row: Row, tmp_path: Path) -> None:
    if reason := row.impossible():
        pytest.skip(reason)
    result = play(row, directory=tmp_path)
    assert not result.faults, "\n".join([*result.faults, *result.notes])
    # A row whose clients had nothing to receive would show nothing.
    for column in COLUMNS:
        account = result.accounts[column]
        assert account.clients >= 20
        assert account.published >= 20


@pytest.mark.skipif(bool(firewall.unavailable()), reason=firewall.unavailable())
def test_no_rule_stays_behind() -> None:
    """Not from this run, nor from one that was killed."""
    with firewall.unreachable("127.127.0.1", 9):
        firewall.sweep()  # what the next run does after one was killed here
    rules = subprocess.run(["iptables", "-S", "INPUT"], check=True, capture_output=True, text=True).stdout
    assert "gateway-chaos" not in rules
