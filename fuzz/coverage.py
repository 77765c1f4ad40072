"""Decoders guided by what of the gateway's code an input reaches (atheris), where that is installed.

`python -m fuzz.coverage NAME RUNS SEED DIRECTORY` is one decoder in a process of its own: atheris ends its process.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fuzz.case import Case, Failure
from fuzz.chance import chance_of

_SEEDS = 200
_DONE = re.compile(r"Done (\d+) runs")


def is_installed() -> bool:
    """Whether there is an atheris for this Python."""
    return importlib.util.find_spec("atheris") is not None


def play(name: str, runs: int, seed: int) -> tuple[int, list[Failure]]:
    """So many inputs of one decoder; returns how many there were, and the one that failed."""
    with tempfile.TemporaryDirectory(prefix="gateway-fuzz-") as directory:
        command = [sys.executable, "-m", "fuzz.coverage", name, str(runs), str(seed), directory]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        found = [
            Failure(
                Case(f"{name} {crash.name}", [name, crash.read_bytes()]), done.stdout[-1500:] + done.stderr[-500:]
            )
            for crash in Path(directory).glob("*-*")
            if crash.is_file()
        ]
        match = _DONE.search(done.stderr)
        if match is None and not found:
            found.append(Failure(None, f"atheris has ended early: {done.stdout[-1500:]}{done.stderr[-1500:]}"))
        return int(match[1]) if match else 0, found


def main(name: str, runs: str, seed: str, directory: str) -> None:
    """Until all runs are done, or one has failed."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gateway"]):
        decoders = importlib.import_module("fuzz.decoders")
    decoder = next(each for each in decoders.DECODERS if each.name == name)
    seeds = Path(directory) / "seeds"
    seeds.mkdir()
    for number in range(_SEEDS):
        (seeds / str(number)).write_bytes(decoder.likely(chance_of(int(seed), name, number))[:4096])
    options = [f"-runs={runs}", f"-seed={seed}", "-max_len=4096", "-timeout=60", f"-artifact_prefix={directory}/"]
    atheris.Setup([sys.argv[0], *options, str(seeds)], decoder.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
