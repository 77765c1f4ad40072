"""nginx and a worker agree on what a path means, so that no spelling leads past a rule of nginx."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import httpx
import pytest

from testing.cluster import Cluster

# Sent as they are, which clients with a URL parser don't do.
TARGETS = [
    *("/", "/events?channel=a", "/events/a", "/publish/a", "/metrics", "/readyz", "/healthz"),
    # Dot segments, plain and encoded, of each endpoint and to each endpoint.
    *("/publish/../events?channel=a", "/publish/../events/a", "/publish/%2e%2e/events/a", "/publish/%2E%2e/events/a"),
    *("/publish/..%2fevents/a", "/publish/..%2Fevents/a", "/publish/%2e%2e%2fevents%2fa", "/publish%2f..%2fevents/a"),
    *(
        "/publish/.%2e/events/a",
        "/publish/%2e./events/a",
        "/publish/x/../../events/a",
        "/publish/./a",
        "/./publish/a",
    ),
    *("/events/../publish/a", "/events/%2e%2e/publish/a", "/events/..%2fpublish/a", "/events/x/%2e%2e/../publish/a"),
    *("/x/../publish/a", "/%2e/publish/a", "/healthz/../publish/a", "/gateway.js/../publish/a", "/../publish/a"),
    *(
        "/events/../metrics",
        "/events/%2e%2e/metrics",
        "/publish/../metrics",
        "/healthz/../metrics",
        "/%2e%2e/metrics",
    ),
    *("/publish/.", "/publish/..", "/publish/../", "/publish/a/..", "/publish/a/.", "/events/.", "/events/a/../b"),
    # Not dot segments.
    *("/events/...", "/events/.a", "/events/a.", "/publish/...", "/publish/.a", "/publish/..a", "/publish/..;/a"),
    # Encoded letters and slashes.
    *("/%70ublish/a", "/publi%73h/a", "/publish%2fa", "/publish%2Fa", "/publish/a%2fb", "/%65vents/a", "/events%2fa"),
    *("/%6detrics", "/metric%73", "/%2fmetrics", "/%2fpublish/a", "/%252e%252e/publish/a", "/publish/%252e%252e/a"),
    # Slashes.
    *(
        "//publish/a",
        "/publish//a",
        "///publish///a",
        "//events/a",
        "/events//a",
        "//metrics",
        "/publish/a/",
        "/events/",
    ),
    *("/publish", "/publish/", "/metrics/", "/readyz/", "/healthz/", "/events/a/"),
    # Case, parameters, backslashes, queries, fragments.
    *(
        "/PUBLISH/a",
        "/Publish/a",
        "/EVENTS/a",
        "/publish;x/a",
        "/publish/a;x",
        "/events;x/a",
        "/metrics;x",
        "/;/publish/a",
    ),
    *("/publish\\a", "/events\\..\\publish\\a", "/events/%5c..%5cpublish/a", "/publish/a%3fb", "/publish/a%23b"),
    *(
        "/publish/a#b",
        "/publish/a%00",
        "/publish/%ff",
        "/publish%00/a",
        "/publish/a%0a",
        "/metrics%0a",
        "/metrics%20",
    ),
    # The absolute form.
    *(
        "http://x/publish/a",
        "http://x/events/a",
        "http://x/metrics",
        "http://x/events/../publish/a",
        "http://x//publish/a",
    ),
]


class Answer(NamedTuple):
    status: int
    what: str
    """Which endpoint it is of, with the channel; empty for a refusal."""


def ask(port: int, method: str, target: str, tls: bool = False) -> Answer:
    body = b"x" if method == "POST" else b""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with ExitStack() as stack:
        connection: socket.socket = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(head.encode() + body)
        answer = b""
        while b"event: gateway.open" not in answer or not answer.rstrip().endswith(b"}"):
            if not (piece := connection.recv(65_536)):
                break
            answer += piece
    head_text, _, text = answer.decode().partition("\r\n\r\n")
    assert "location:" not in head_text.lower(), f"{target} is redirected: {head_text}"
    status = int(head_text.split()[1])
    return Answer(status, _endpoint(text) if status < 400 else "")


def _endpoint(text: str) -> str:
    if "event: gateway.open" in text:
        [said] = [line for line in text.splitlines() if line.startswith("data: ")]
        return f"stream {said}"
    for sign, endpoint in (("# HELP", "metrics"), ("ready", "readyz"), ("<html", "console"), ('"ok"', "healthz")):
        if sign in text:
            return endpoint
    assert '"receivers"' in text, text
    return text.partition(',"receivers"')[0].replace("{", "published ")


@pytest.fixture(scope="module", params=[False, True], ids=["trial", "production"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("paths"), production=request.param, console=True) as cluster:
        yield cluster


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_spelling_means_one_thing_to_nginx_and_another_to_a_worker(cluster: Cluster, method: str) -> None:
    production = bool(cluster.nginx.tls_port)
    different, reached = {}, set()
    for target in TARGETS:
        direct = ask(cluster.workers[0].port, method, target)
        through = ask(cluster.nginx.tls_port or cluster.nginx.port, method, target, production)
        # nginx may refuse what a worker would do, and never makes something else of it.
        if through.what not in ("", direct.what):
            different[target] = (direct, through)
        reached.add(through.what.partition(" ")[0])
    assert not different
    if production:
        assert reached == ({"", "stream", "healthz"} if method == "GET" else {""})
    else:
        assert reached == (
            {"", "stream", "healthz", "metrics", "readyz", "console"} if method == "GET" else {"", "published"}
        )


@pytest.mark.parametrize(
    "target",
    ["/publish/../events/a", "/publish/%2e%2e/events/a", "/publish/..%2fevents/a", "/publish/..", "/publish/a/%2E/b"],
)
def test_a_worker_takes_no_dot_segments(cluster: Cluster, target: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert ask(cluster.workers[0].port, method, target).status == 400


@pytest.mark.parametrize("path", ["/healthz/", "/metrics/", "/publish", "/events/"])
def test_nobody_is_sent_elsewhere(cluster: Cluster, path: str) -> None:
    """A redirect would name the host that the request has named."""
    for url in (cluster.workers[0].url, cluster.url):
        answer = httpx.get(url + path, headers={"Host": "attacker.example"}, verify=False)
        assert answer.status_code in (400, 404)
        assert "attacker.example" not in str(answer.headers)
