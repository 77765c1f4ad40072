"""Another Redis takes over, or this one loses what it had."""

from pathlib import Path

import pytest

from chaos.row import Row
from tests.edge.chaos_rows import hold, rows_of


@pytest.mark.parametrize("row", rows_of("replicas"), ids=lambda row: row.name)
def test_nothing_is_lost_in_silence(row: Row, tmp_path: Path) -> None:
    hold(row, tmp_path)
