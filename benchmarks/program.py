"""Programs that are measured where they are installed."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
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
    said = _first_line([str(program), "version"])
    if said and "v0.0.0" in said and (go := shutil.which("go")):
        # Built by `go install`, which knows the version but doesn't tell the program.
        run = subprocess.run([go, "version", "-m", str(program)], capture_output=True, text=True, check=False)
        modules = [line.split() for line in run.stdout.splitlines() if line.startswith("\tmod\t")]
        return " ".join(modules[0][1:3]) if modules else said
    return said


def _first_line(words: Sequence[str]) -> str | None:
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    return next(iter(run.stdout.strip().splitlines()), None)
