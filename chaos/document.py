"""Writes what was measured into a page of docs/, between marks."""

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"
RELIABILITY = _DOCS / "reliability.md"
SECURITY = _DOCS / "security.md"


def write(mark: str, text: str, page: Path = RELIABILITY) -> None:
    """Replace what stands between `<!-- mark: … -->` and `<!-- end of mark -->`."""
    before = page.read_text()
    begin, end = _place(mark, before)
    page.write_text(f"{before[:begin]}\n{text}\n{before[end:]}")


def written(mark: str, page: Path = RELIABILITY) -> str:
    """What stands there now."""
    text = page.read_text()
    begin, end = _place(mark, text)
    return text[begin:end]


def _place(mark: str, text: str) -> tuple[int, int]:
    begin = text.index("\n", text.index(f"<!-- {mark}:")) + 1
    return begin, text.index(f"<!-- end of {mark} -->")


def dated(text: str, remarks: Iterable[str]) -> str:
    """With what belongs to it: when, on what, and what else was seen."""
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    version = next(word for word in redis.split() if word.startswith("v="))[2:]
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, Redis {version}"
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{text}\nMeasured {today}: {where}.\n\n" + "".join(f"- {remark}\n" for remark in remarks)
