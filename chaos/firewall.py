"""Packets that vanish between the workers and Redis."""

import contextlib
import subprocess
from collections.abc import Iterator

_MARK = "gateway-chaos"
"""Comment of our rules; any that a killed run left behind are known by it."""


def unavailable() -> str:
    """Why no packets can be dropped here; empty if they can."""
    try:
        _iptables("-S", "INPUT")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"iptables cannot be used: {getattr(error, 'stderr', None) or error}".strip()
    return ""


@contextlib.contextmanager
def unreachable(address: str, port: int) -> Iterator[None]:
    """Drop what goes to that address and port and what comes from it: no answer, no reset, no news at all."""
    sweep()
    both = (["-d", address, "-p", "tcp", "--dport", str(port)], ["-s", address, "-p", "tcp", "--sport", str(port)])
    rules = [["INPUT", "-i", "lo", *match, "-m", "comment", "--comment", _MARK, "-j", "DROP"] for match in both]
    try:
        for rule in rules:
            _iptables("-I", *rule)
        yield
    finally:
        for rule in rules:
            with contextlib.suppress(subprocess.CalledProcessError):
                _iptables("-D", *rule)


def sweep() -> None:
    """Remove rules of runs that were killed before they could."""
    for line in _iptables("-S", "INPUT").splitlines():
        if f"--comment {_MARK} " in f"{line} ".replace('"', ""):
            _iptables("-D", *line.split()[1:])


def _iptables(*words: str) -> str:
    return subprocess.run(["iptables", "-w", "5", *words], check=True, capture_output=True, text=True).stdout
