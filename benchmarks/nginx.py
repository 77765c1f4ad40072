"""nginx processes: the edge in front of a server, and Nchan, which is one of its modules."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.bench import server
from gateway.bench.errors import BenchError

_REPOSITORY = Path(__file__).parents[1]
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

# Started by root, nginx would become a user who may not enter our directory.
_USER = "user root;" if os.geteuid() == 0 else ""


@dataclass(frozen=True)
class Nginx:
    """One that runs: its port, and the processes that do the work."""

    port: int
    pids: tuple[int, ...]


@contextmanager
def running(directory: Path, cores: Collection[int], write: Callable[[Path, int], None]) -> Iterator[Nginx]:
    """nginx with a configuration of its own, which `write` puts into the directory for the port it is given."""
    directory.mkdir()
    port = server.free_port()
    write(directory / "nginx.conf", port)
    main = f"daemon off; pid {directory}/nginx.pid; {_USER}"
    # -e: before nginx reads which error log is meant, it opens the system's.
    words = ["nginx", "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log"), "-g", main]
    try:
        with server.running(words, {}, cores) as (process, log):
            # The master listens before it has workers.
            count = _worker_processes(directory / "nginx.conf")
            server.wait(lambda: len(_children(process.pid)) == count and server.accepts(port), process, log)
            children = _children(process.pid)
            for pid in children:  # those that were there before we could name the master's cores
                os.sched_setaffinity(pid, cores)
            yield Nginx(port, children)
    finally:
        shutil.rmtree(directory)


def _worker_processes(configuration: Path) -> int:
    found = re.search(r"^worker_processes (\d+);", configuration.read_text(), re.MULTILINE)
    return int(found[1]) if found else 1


def _children(pid: int) -> tuple[int, ...]:
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def temporary_paths(directory: Path) -> str:
    """Directives that keep nginx out of the system's directories."""
    return "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in _TEMPORARY)


def version() -> str | None:
    """Of the nginx here; None if there is none."""
    if not shutil.which("nginx"):
        return None
    return subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().split("/")[-1]


def edge_configuration(upstreams: Collection[str], processes: int) -> Callable[[Path, int], None]:
    """The project's own nginx.conf, changed only where a benchmark cannot take it as it is: addresses, directories,
    the number of processes.

    Args:
        upstreams: `127.0.0.1:8081`, or `unix:/path`.
        processes: of nginx.
    """

    def write(path: Path, port: int) -> None:
        directory = path.parent
        parts = directory / "deploy" / "nginx"
        shutil.copytree(_REPOSITORY / "deploy" / "nginx", parts)
        upstream = (parts / "upstream-fixed.conf").read_text()
        servers = "\n    ".join(f"server {address} max_fails=0;" for address in upstreams)
        upstream = _replaced(upstream, "server 127.0.0.1:8082 max_fails=0;", "")
        upstream = _replaced(upstream, "server 127.0.0.1:8081 max_fails=0;", servers)
        (parts / "upstream.conf").write_text(upstream)
        main = (_REPOSITORY / "nginx.conf").read_text()
        main = _replaced(main, "worker_processes auto;", f"worker_processes {processes};")
        path.write_text(_replaced(main, "http {\n", f"http {{\n{temporary_paths(directory)}"))
        for one in (path, *parts.iterdir()):
            text = one.read_text().replace("/var/log/nginx/", f"{directory}/")
            one.write_text(text.replace("listen 80 ", f"listen 127.0.0.1:{port} "))

    return write


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise BenchError(f"{old!r} is {text.count(old)} times in the nginx configuration, not once.")
    return text.replace(old, new)
