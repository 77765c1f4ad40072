"""The servers a benchmark starts for itself."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

import gateway
from gateway.bench.child import environment
from gateway.bench.errors import BenchError

_PATIENCE = 30.0
"""Seconds a server may take to start, and to stop."""

TUTORIAL = Path(gateway.__file__).parent.parent / "benchmarks" / "tutorial.py"


@dataclass(frozen=True)
class Server:
    """A server that runs: where it is, and which process it is."""

    url: str
    pid: int


@contextmanager
def redis_server(cores: Collection[int]) -> Iterator[str]:
    """A redis-server of our own, without persistence; gives its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            directory,
        ]
        with running(command, {}, cores) as (process, log):
            wait(lambda: accepts(port), process, log)
            yield f"redis://127.0.0.1:{port}/0"


def have_redis_server() -> bool:
    return shutil.which("redis-server") is not None


@contextmanager
def worker(
    redis_url: str, cores: Collection[int], settings: Mapping[str, str], checkout: Path | None = None
) -> Iterator[Server]:
    """One `gateway run`, with these variables on top of the environment's.

    Its URL is of use only if no unix socket is among them. With a checkout it is that directory's gateway, run by
    this interpreter with the packages installed here.
    """
    port = free_port()
    given = {
        "GATEWAY_REDIS_URL": redis_url,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_UNIX_SOCKET": "",
        "GATEWAY_DRAIN_WINDOW": "0",
        **settings,
    }
    if checkout:
        given["PYTHONPATH"] = str(checkout)
    with running([sys.executable, "-m", "gateway", "run"], given, cores, checkout) as (process, log):
        url = f"http://127.0.0.1:{port}"
        wait(lambda: answers(url + "/readyz", given["GATEWAY_UNIX_SOCKET"]), process, log)
        yield Server(url, process.pid)


@contextmanager
def tutorial(redis_url: str, cores: Collection[int]) -> Iterator[Server]:
    """The tutorial-style endpoint, by the same uvicorn with the same event loop and parser."""
    port = free_port()
    words = [
        "--app-dir",
        str(TUTORIAL.parent),
        "--port",
        str(port),
        "--log-level",
        "warning",
        "--no-access-log",
    ]
    command = [sys.executable, "-m", "uvicorn", "tutorial:app", *words]
    with running(command, {"REDIS_URL": redis_url}, cores) as (process, log):
        wait(lambda: accepts(port), process, log)
        yield Server(f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], cores: Collection[int], directory: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process on these cores, with these variables on top of ours; gives it, and where its output goes.

    It runs in that directory, or in ours.
    """
    with tempfile.NamedTemporaryFile(prefix="gateway-bench-", suffix=".log") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(**variables),
            cwd=directory,
            start_new_session=True,
        )
        # Threads inherit it, and this early the process has none yet.
        os.sched_setaffinity(process.pid, cores)
        try:
            yield process, Path(log.name)
        except BenchError as error:
            if process.poll() is None:
                raise
            words = _tail(Path(log.name))
            raise BenchError(
                f"{error.message} `{command[0]}` had ended, status {process.returncode}:\n{words}"
            ) from None
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it is ready; raise if it has ended instead, or takes too long."""
    end = time.monotonic() + _PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise (
                BenchError("A server did not start.")
                if process.poll() is not None
                else BenchError(f"A server was not ready within {_PATIENCE:g} s:\n{_tail(log)}")
            )
        time.sleep(0.02)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-2000:]


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody listens on that port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str, unix_socket: str = "") -> bool:
    """Whether that URL is answered with 200, by way of a unix socket if one is named."""
    if unix_socket:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(unix_socket):  # httpx would leave a socket open
                return False
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=unix_socket or None), timeout=2) as client:
            return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False
