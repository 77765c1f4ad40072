"""Nchan: the same thing as an nginx module in C."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import nginx
from benchmarks.stage import Stage
from gateway.bench.errors import BenchError
from gateway.bench.session import Target

_PACKAGE = "libnginx-mod-nchan"
_FILE = Path("usr/lib/nginx/modules/ngx_nchan_module.so")

# One worker process, as the gateway has one. It keeps as many messages as long as the gateway does by default. It is
# given the memory for that; its access log and gzip are off, and so are ours.
_CONFIGURATION = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile 20000;
error_log {directory}/error.log warn;
events {{
    worker_connections 19900;
}}
http {{
    {temporary}
    access_log off;
    gzip off;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    nchan_shared_memory_size 512M;
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location = /events {{
            nchan_subscriber eventsource;
            nchan_channel_id $arg_channel;
            nchan_subscriber_first_message newest;
            nchan_eventsource_ping_interval 15;
        }}
        location = /publish {{
            nchan_publisher;
            nchan_channel_id $arg_channel;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 300s;
            client_max_body_size 2m;
            client_body_buffer_size 128k;
        }}
    }}
}}
"""


def module(directory: Path) -> Path:
    """The module: the system's, else the package's, unpacked into that directory. Nothing is installed.

    Raises:
        BenchError: it can't be had.
    """
    if (Path("/") / _FILE).exists():
        return Path("/") / _FILE
    if nginx.version() is None:
        raise BenchError("nginx is not installed.")
    if not shutil.which("apt-get"):
        raise BenchError(f"{_PACKAGE} is not installed, and there is no apt to get it with.")
    place = directory / "nchan-package"
    if not (place / _FILE).exists():
        place.mkdir(exist_ok=True)
        # Not as another user, whom apt prefers but who may not write here.
        words = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", _PACKAGE]
        run = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
        packages = list(place.glob("*.deb"))
        if run.returncode or not packages:
            raise BenchError(f"apt-get cannot download {_PACKAGE}: {(run.stderr.strip() or '?').splitlines()[-1]}")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(place)], check=True)
    return place / _FILE


@contextmanager
def nchan(stage: Stage) -> Iterator[Target]:
    """Nchan, running."""
    configuration = _configuration(module(stage.directory))
    with nginx.running(stage.directory / "nchan", stage.server_cores, configuration) as running:
        url = f"http://127.0.0.1:{running.port}"
        yield Target(
            url + "/events",
            url + "/publish?channel={channel}",
            pids=running.pids,
            cores=stage.server_cores,
        )


def version(directory: Path) -> str | None:
    """Of the package; None if it can't be had."""
    place = directory / "nchan-package"
    names = [path.name.split("_")[1].replace("%3a", ":") for path in place.glob("*.deb")]
    return names[0] if names else None


def _configuration(path: Path) -> Callable[[Path, int], None]:
    def write(file: Path, port: int) -> None:
        file.write_text(
            _CONFIGURATION.format(
                module=path, directory=file.parent, temporary=nginx.temporary_paths(file.parent), port=port
            )
        )

    return write
