"""What the figures were measured on."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks import nchan, nginx, program
from benchmarks.limit import compiler
from gateway import __version__

_PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "sse-starlette", "redis")


def machine(directory: Path, programs: Mapping[str, Path]) -> Mapping[str, str]:
    """What a reader must know to compare figures with his own.

    Args:
        directory: where Nchan's package may have been unpacked.
        programs: where peers are that can't be had by themselves.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return {
        "gateway": f"{__version__}, {_commit()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {packages}",
        "nginx": nginx.version() or "–",
        "Nchan": nchan.version(directory) or "–",
        "Mercure": program.version(programs.get("mercure")) or "–",
        "Centrifugo": program.version(programs.get("centrifugo")) or "–",
        "the limit": "C" if compiler() else "Python, for there is no C compiler",
    }


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not in a repository"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
