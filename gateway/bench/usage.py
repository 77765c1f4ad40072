"""What the server's processes have used so far, from /proc."""

import os
from collections.abc import Collection
from pathlib import Path

from gateway.bench.errors import BenchError

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Collection[int]) -> float:
    """User and system time. The kernel adds a process's share of network work done on its behalf."""
    total = 0
    for pid in pids:
        fields = _read(pid, "stat").rpartition(")")[2].split()  # the name before it may hold anything
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def resident_bytes(pids: Collection[int]) -> int:
    """Memory that is in RAM, socket buffers of the kernel not included."""
    return sum(int(_read(pid, "statm").split()[1]) for pid in pids) * _PAGE


def proportional_bytes(pids: Collection[int]) -> int:
    """The same, with what several processes share (programs, libraries) counted once among them."""
    total = 0
    for pid in pids:
        line = next(line for line in _read(pid, "smaps_rollup").splitlines() if line.startswith("Pss:"))
        total += int(line.split()[1]) * 1024
    return total


def busy_seconds(cores: Collection[int]) -> float:
    """What anybody has used of these cores."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total / _TICK


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        raise BenchError(f"The server process {pid} is not there (any more).") from None
