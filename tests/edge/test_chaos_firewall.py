"""Packets vanish between the workers and Redis.

These share the rules of the machine's packet filter, so they stay in one file: files run side by side.
"""

import subprocess
from pathlib import Path

import pytest

from chaos import firewall
from chaos.row import Row
from tests.edge.chaos_rows import hold, rows_of


@pytest.mark.parametrize("row", rows_of("firewall"), ids=lambda row: row.name)
def test_nothing_is_lost_in_silence(row: Row, tmp_path: Path) -> None:
    hold(row, tmp_path)


@pytest.mark.skipif(bool(firewall.unavailable()), reason=firewall.unavailable())
def test_no_rule_stays_behind() -> None:
    """Not from this run, nor from one that was killed."""
    with firewall.unreachable("127.127.0.1", 9):
        firewall.sweep()  # what the next run does after one was killed here
    rules = subprocess.run(["iptables", "-S", "INPUT"], check=True, capture_output=True, text=True).stdout
    assert "gateway-chaos" not in rules
