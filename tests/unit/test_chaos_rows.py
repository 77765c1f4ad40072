"""No row of the chaos table is left out of the tests."""

from pathlib import Path

from chaos.rows import ROWS
from tests.edge import chaos_rows


def test_every_row_is_in_a_file_that_exists() -> None:
    files = [
        path.stem.removeprefix("test_chaos_") for path in Path(chaos_rows.__file__).parent.glob("test_chaos_*.py")
    ]
    played = [row.name for file in files for row in chaos_rows.rows_of(file)]
    assert sorted(played) == sorted(row.name for row in ROWS)
