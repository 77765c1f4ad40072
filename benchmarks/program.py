"""Programs that are measured where they are installed."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("mercure", "centrifugo")


def installed(named: Mapping[str, Path | None]) -> Mapping[str, Path]:
    """Where each of them is.

    Args:
        named: those whose place is known; the others are looked for on PATH.
    """
    places = {name: named.get(name) or shutil.which(name) for name in PROGRAMS}
    return {name: Path(place).absolute() for name, place in places.items() if place}


def lacking(programs: Mapping[str, Path]) -> Mapping[str, str]:
    """A sentence for each that isn't there."""
    return {
        name: f"{name} is not on PATH, and --{name} does not say where it is."
        for name in PROGRAMS
        if name not in programs
    }


def version(program: Path | None) -> str | None:
    """What the program says of itself, in one line; None if it isn't there or says nothing."""
    if program is None:
        return None
    run = subprocess.run([str(program), "version"], capture_output=True, text=True, check=False)
    return next(iter(run.stdout.strip().splitlines()), None)
