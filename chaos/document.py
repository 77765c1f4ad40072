"""Writes what was measured into docs/reliability.md, between marks."""

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def write(mark: str, text: str) -> None:
    """Replace what stands between `<!-- mark: … -->` and `<!-- end of mark -->`."""
    page = PAGE.read_text()
    begin = page.index(f"<!-- {mark}:")
    begin = page.index("\n", begin) + 1
    end = page.index(f"<!-- end of {mark} -->")
    PAGE.write_text(f"{page[:begin]}\n{text}\n{page[end:]}")


def dated(text: str, remarks: Iterable[str]) -> str:
    """With what belongs to it: when, on what, and what else was seen."""
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    version = next(word for word in redis.split() if word.startswith("v="))[2:]
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, Redis {version}"
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{text}\nMeasured {today}: {where}.\n\n" + "".join(f"- {remark}\n" for remark in remarks)
