"""What is measured: each row starts a server and says where it is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from benchmarks import nginx
from benchmarks.centrifugo import centrifugo
from benchmarks.limit import limit
from benchmarks.mercure import mercure
from benchmarks.nchan import module, nchan
from benchmarks.program import lacking
from benchmarks.stage import Stage
from benchmarks.tokens import SECRET, headers_with_tokens
from gateway.bench import server
from gateway.bench.errors import BenchError
from gateway.bench.session import ACCEPT_GZIP, Target

Start = Callable[[Stage], AbstractContextManager[Target]]


@dataclass(frozen=True)
class Row:
    """One of the servers that are compared.

    Args:
        start: starts it.
        about: what it is.
        needs: programs it can't do without.
    """

    start: Start
    about: str
    needs: frozenset[str] = frozenset()


@contextmanager
def _tutorial(stage: Stage) -> Iterator[Target]:
    with server.tutorial(stage.redis_url, stage.server_cores) as running:
        yield Target(running.url, stage.redis_url, pids=(running.pid,), cores=stage.server_cores)


def gateway(delivery: str, unix: bool = False, checkout: Path | None = None) -> Start:
    """One worker.

    Args:
        delivery: the path to a client, as in the setting of that name.
        unix: whether it listens on a unix socket.
        checkout: the directory whose gateway it is, if it isn't this one.
    """

    @contextmanager
    def start(stage: Stage) -> Iterator[Target]:
        path = str(stage.directory / "worker.sock") if unix else ""
        settings = {"GATEWAY_DELIVERY": delivery, "GATEWAY_UNIX_SOCKET": path}
        with server.worker(stage.redis_url, stage.server_cores, settings, checkout) as running:
            url = f"unix:{path}" if unix else running.url
            yield Target(url, stage.redis_url, pids=(running.pid,), cores=stage.server_cores)

    return start


def _with_tokens(count: int) -> Start:
    """A worker that wants tokens, and clients that send so many different ones in turn."""

    @contextmanager
    def start(stage: Stage) -> Iterator[Target]:
        with server.worker(stage.redis_url, stage.server_cores, {"GATEWAY_JWT_SECRET": SECRET}) as running:
            yield Target(
                running.url, stage.redis_url, pids=(running.pid,), cores=stage.server_cores,
                headers_in_turn=headers_with_tokens(count),
            )  # fmt: skip

    return start


def _behind_nginx(start: Start) -> Start:
    """The same server with the project's nginx in front of it, on the same core."""

    @contextmanager
    def start_both(stage: Stage) -> Iterator[Target]:
        with start(stage) as target:
            upstream = target.url if target.url.startswith("unix:") else urlsplit(target.url).netloc
            configuration = nginx.edge_configuration([upstream], processes=1)
            with nginx.running(stage.directory / "edge", stage.server_cores, configuration) as edge:
                yield replace(target, url=f"http://127.0.0.1:{edge.port}/events", proxy_pids=edge.pids)

    return start_both


def _taking_gzip(start: Start) -> Start:
    """The same server, with clients that say they take gzip."""

    @contextmanager
    def start_it(stage: Stage) -> Iterator[Target]:
        with start(stage) as target:
            yield replace(target, headers=(ACCEPT_GZIP,))

    return start_it


_NGINX = frozenset({"nginx"})
_BOTH = frozenset({"nginx", "nchan"})

ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "limit": Row(limit, "a loop of bare write(2) calls, in C"),
        "tutorial": Row(_tutorial, "Starlette with sse-starlette, as the tutorials have it"),
        "portable": Row(gateway("portable"), "the gateway, through ASGI"),
        "direct": Row(gateway("direct"), "the gateway as it runs by default"),
        "direct gzip": Row(_taking_gzip(gateway("direct")), "the same gateway, its clients taking gzip"),
        "direct token": Row(_with_tokens(2_000), "the same gateway with a secret, its clients sending 2,000 tokens"),
        "direct new token": Row(_with_tokens(10_000), "likewise, with 10,000 tokens"),
        "nchan": Row(nchan, "Nchan, an nginx module in C", _BOTH),
        "mercure": Row(mercure, "Mercure, a hub in Go", frozenset({"mercure"})),
        "centrifugo": Row(centrifugo, "Centrifugo, a server in Go", frozenset({"centrifugo"})),
        "direct+nginx tcp": Row(_behind_nginx(gateway("direct")), "the gateway behind nginx, TCP between", _NGINX),
        "direct+nginx unix": Row(
            _behind_nginx(gateway("direct", unix=True)), "the gateway behind nginx, a unix socket between", _NGINX
        ),
        "nchan+nginx tcp": Row(_behind_nginx(nchan), "Nchan behind the same nginx, TCP between", _BOTH),
    }
)


def missing(directory: Path, programs: Mapping[str, Path] = MappingProxyType({})) -> Mapping[str, str]:
    """The programs rows may need that can't be had here, and why.

    Args:
        directory: where Nchan's package may be unpacked.
        programs: where peers are that can't be had by themselves.
    """
    absent = dict(lacking(programs))
    if nginx.version() is None:
        absent["nginx"] = "nginx is not installed."
    try:
        module(directory)
    except BenchError as error:
        absent["nchan"] = error.message
    return absent
