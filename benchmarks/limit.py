"""The limit: a loop of bare writes, in C where there is a compiler and in Python elsewhere."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.stage import Stage
from gateway.bench import server
from gateway.bench.errors import BenchError
from gateway.bench.session import Target

_SOURCE = Path(__file__).with_suffix(".c")


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@contextmanager
def limit(stage: Stage, cc: str | None = compiler()) -> Iterator[Target]:
    """The limit, running."""
    port = server.free_port()
    words = [*_program(stage.directory, cc), str(port), str(urlsplit(stage.redis_url).port)]
    with server.running(words, {}, stage.server_cores) as (process, log):
        server.wait(lambda: server.accepts(port), process, log)
        yield Target(
            f"http://127.0.0.1:{port}/events", stage.redis_url, pids=(process.pid,), cores=stage.server_cores
        )


def _program(directory: Path, cc: str | None) -> list[str]:
    if cc is None:
        return [sys.executable, "-m", "benchmarks.limit_loop"]
    program = directory / "limit"
    if not program.exists():
        words = [cc, "-O2", "-o", str(program), str(_SOURCE)]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        if run.returncode:
            raise BenchError(f"{_SOURCE.name} does not compile here:\n{run.stderr}")
    return [str(program)]
