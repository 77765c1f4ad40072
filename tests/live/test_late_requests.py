"""What a client may take its time for, and what not; what it may leave behind, and what not."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.transient import transient
from testing.waiting import wait_until

SHORT: dict[str, Any] = {"head_timeout": 0.4, "body_timeout": 0.4, "keepalive_timeout": 0.4}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
BODY_BEGUN = b"POST /publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx"


class _Listening:
    """A worker, and how to reach it."""

    def __init__(self, worker: Worker, path: Path | None) -> None:
        self.worker = worker
        self._path = path

    def connect(self, request: bytes = b"") -> socket.socket:
        if self._path is None:
            connection = socket.create_connection(("127.0.0.1", self.worker.port))
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self._path))
        connection.settimeout(20)
        connection.sendall(request)
        return connection

    def metric(self, name: str, **labels: str) -> float:
        if self._path is None:
            return metric(self.worker, name, **labels)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._path))) as client:
            return _value(client.get("http://gateway/metrics").text, name, **labels)


def _value(text: str, name: str, **labels: str) -> float:
    wanted = ",".join(f'{label}="{value}"' for label, value in labels.items())
    prefix = f"gateway_{name}{{{wanted}}} " if labels else f"gateway_{name} "
    return next((float(line[len(prefix) :]) for line in text.splitlines() if line.startswith(prefix)), 0.0)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def short(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Listening]:
    """A worker that waits for nobody, on each kind of socket."""
    directory = tmp_path_factory.mktemp("short")
    if request.param == "tcp":
        with Worker(directory, redis_server.url, **SHORT) as worker:
            yield _Listening(worker, None)
    else:
        path = directory / "worker.sock"
        with Worker(directory, redis_server.url, unix_socket=path, **SHORT).start(wait=False) as worker:
            worker.wait_for_output(f"listens on {path}")
            yield _Listening(worker, path)


def _rest(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def _trickle(connection: socket.socket, piece: bytes) -> bytes:
    """What is answered to somebody who never stops sending."""
    connection.settimeout(0.02)
    answer = b""
    for _ in range(1000):
        try:
            connection.sendall(piece)
            got = connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return answer
        if not got:
            return answer
        answer += got
    raise AssertionError("it went on forever")


def test_a_connection_on_which_nothing_comes_is_closed(short: _Listening) -> None:
    before = short.metric("bad_requests_total", reason="head_timeout")
    with short.connect() as connection:
        assert _rest(connection) == b""
    assert short.metric("bad_requests_total", reason="head_timeout") == before + 1


@pytest.mark.parametrize("begun", [b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "])
def test_an_unfinished_head_is_answered_with_408(short: _Listening, begun: bytes) -> None:
    with short.connect(begun) as connection:
        answer = _rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"head_timeout" in answer


def test_a_head_byte_by_byte_is_late_all_the_same(short: _Listening) -> None:
    with short.connect(b"GET /healthz HTTP/1.1\r\nX-Long: ") as connection:
        assert _trickle(connection, b"x").startswith(b"HTTP/1.1 408 ")


def test_an_unfinished_body_is_answered_with_408(short: _Listening) -> None:
    before = short.metric("bad_requests_total", reason="body_timeout")
    with short.connect(BODY_BEGUN) as connection:
        answer = _rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
    assert short.metric("bad_requests_total", reason="body_timeout") == before + 1
    wait_until(lambda: short.metric("body_bytes") == 0, "the body forgotten")
    assert "without starting response" not in short.worker.output


@pytest.mark.parametrize("head", [BODY_BEGUN, b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_a_body_byte_by_byte_is_late_all_the_same(short: _Listening, head: bytes) -> None:
    with short.connect(head) as connection:
        assert _trickle(connection, b"1\r\nx\r\n").startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /healthz HTTP/1.1\r\nHost:"])
def test_a_kept_connection_is_closed_or_goes_on(short: _Listening, sent: bytes) -> None:
    with short.connect() as connection:
        for _ in range(2):
            connection.sendall(HEALTH)
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += connection.recv(65536)
        connection.sendall(sent)
        rest = _rest(connection)
    assert rest.startswith(b"HTTP/1.1 408 ") if sent else rest == b""


def test_empty_lines_do_not_keep_a_connection(short: _Listening) -> None:
    with short.connect(HEALTH) as connection:
        assert _trickle(connection, b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_hundreds_of_half_open_connections_leave_nothing(short: _Listening) -> None:
    with ExitStack() as stack:
        tasks = short.metric("tasks")
        half = [stack.enter_context(short.connect(b"GET /")) for _ in range(450)]
        half += [stack.enter_context(short.connect()) for _ in range(450)]
        assert {_rest(connection)[:13] for connection in half} == {b"HTTP/1.1 408 ", b""}
        assert short.metric("tasks") <= tasks


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_streams_are_never_late(tmp_path: Path, redis_server: RedisServer, delivery: str) -> None:
    get = b"GET /events?channel=late HTTP/1.1\r\nHost: x\r\n"
    post = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 21\r\n\r\n" + b'{"channels":["late"]}'
    requests = [
        get + b"\r\n",
        get + b"\r\nGET /healthz HTTP/1.1\r\nHost:",  # the next head never ends
        get + b"Content-Length: 1000\r\n\r\nx",  # its own body never ends
        post,
    ]
    with Worker(tmp_path, redis_server.url, delivery=delivery, **SHORT) as worker, ExitStack() as stack:
        listening = _Listening(worker, None)
        streams = [stack.enter_context(listening.connect(request)) for request in requests]
        wait_until(lambda: metric(worker, "streams") == len(requests), "all open")
        with listening.connect() as connection:
            assert _rest(connection) == b""  # whatever was due before this one was due
        for stream in streams:
            stream.sendall(b"P")  # belongs to the header, the body, or the next request
        redis_server.client().publish("late", "still here")
        for stream in streams:
            answer = b""
            while b"still here" not in answer:
                piece = stream.recv(65536)
                assert piece, answer
                answer += piece
        assert metric(worker, "streams") == len(requests)


def test_a_request_that_is_being_answered_is_never_late(tmp_path: Path, private_redis: RedisServer) -> None:
    with Worker(tmp_path, private_redis.url, canary_interval=0, **SHORT) as worker:
        listening = _Listening(worker, None)
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with listening.connect(BODY_BEGUN + b"x" * 999) as publishing:
                wait_until(lambda: metric(worker, "body_bytes") == 1000, "the message complete")
                for _ in range(2):
                    with listening.connect() as connection:
                        assert _rest(connection) == b""
                private_redis.send_signal(signal.SIGCONT)
                assert publishing.recv(65536).startswith(b"HTTP/1.1 200 ")
        finally:
            private_redis.send_signal(signal.SIGCONT)
        assert metric(worker, "body_bytes") == 0


def test_all_bodies_together_are_limited(tmp_path: Path, redis_server: RedisServer) -> None:
    limits: dict[str, Any] = {"max_payload_bytes": 100_000, "max_bodies_bytes": 200_000}
    head = b"POST /publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    with Worker(tmp_path, redis_server.url, **limits) as worker, ExitStack() as stack:
        listening = _Listening(worker, None)
        first, second = (stack.enter_context(listening.connect(head + b"x" * 99_999)) for _ in range(2))
        wait_until(lambda: metric(worker, "body_bytes") == 199_998, "both nearly complete")
        with listening.connect(head + b"xyz") as third:
            answer = _rest(third)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b"max_bodies_bytes" in answer
        stream = httpx.post(f"{worker.url}/events", json={"channels": ["a"]})
        assert transient(stream.text).reason == "full"
        assert metric(worker, "bodies_refused_total") == 2
        for connection in (first, second):
            connection.sendall(b"x")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert metric(worker, "body_bytes") == 0


def test_who_is_turned_away_does_not_keep_the_connection(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, max_streams=1, keepalive_timeout=3600) as worker:
        listening = _Listening(worker, None)
        with open_stream(worker.url, "a"):
            for request in (
                b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n",
                b'POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n{"channels":["a"]}',
            ):
                with listening.connect(request) as connection:
                    head, _, body = _rest(connection).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert b"\r\nconnection: close" in head
                assert transient(body.decode()).reason == "full"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"POST /publish/a", 403), (b"POST /nowhere", 404), (b"PUT /events", 405), (b"POST /healthz", 405)],
)
def test_an_error_before_the_body_closes_the_connection_and_arrives(
    tmp_path: Path, redis_server: RedisServer, request_line: bytes, status: int
) -> None:
    with Worker(tmp_path, redis_server.url, http_publish=False, keepalive_timeout=3600) as worker:
        head = request_line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        with _Listening(worker, None).connect(head) as connection:
            # Sent after the answer: where nobody reads it any more, the connection is reset and the answer lost.
            wait_until(lambda: connection.recv(1, socket.MSG_PEEK), "the answer")
            connection.sendall(b"x" * 999)
            connection.sendall(b"x")
            answer = _rest(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close" in answer.partition(b"\r\n\r\n")[0]


def test_an_error_after_the_body_keeps_the_connection(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, http_publish=False) as worker:
        request = b"POST /publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        with _Listening(worker, None).connect(request) as connection:
            answer = b""
            while not answer.endswith(b"}\n"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 403 ")
            connection.sendall(HEALTH)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_nobody_reads_does_not_go_on_for_ever(tmp_path: Path, redis_server: RedisServer) -> None:
    head = b"POST /publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    with Worker(tmp_path, redis_server.url, http_publish=False) as worker:

        def send_body(connection: socket.socket) -> None:
            for _ in range(1000):
                connection.sendall(b"x" * 1_000_000)

        with _Listening(worker, None).connect(head) as connection, pytest.raises(OSError):
            send_body(connection)


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_connections_besides_streams_are_limited(tmp_path: Path, redis_server: RedisServer, delivery: str) -> None:
    limit = 10
    settings: dict[str, Any] = {"max_connections": limit, "delivery": delivery, "head_timeout": 3600}
    with (
        Worker(tmp_path, redis_server.url, keepalive_timeout=3600, **settings) as worker,
        httpx.Client() as client,  # its connection is one of the ten, and is kept
        ExitStack() as stack,
    ):

        def value(name: str) -> float:
            return _value(client.get(f"{worker.url}/metrics").text, name)

        listening = _Listening(worker, None)
        streams = [stack.enter_context(open_stream(worker.url, "a")) for _ in range(2 * limit)]
        assert value("connections_limit") == limit
        silent = [stack.enter_context(listening.connect()) for _ in range(limit - 1)]
        wait_until(lambda: value("connections") == limit, "all accepted")
        assert value("connections_refused_total") == 0
        silent += [stack.enter_context(listening.connect()) for _ in range(50)]
        wait_until(lambda: _closed(silent) == 50, "what is beyond the limit closed")
        assert value("connections_refused_total") == 50
        # Whoever comes with a request is served, once the others have been silent for a while.
        wait_until(lambda: _healthy(worker), "a health check")
        assert value("connections") <= limit
        redis_server.client().publish("a", "still here")
        for stream in streams:
            assert stream.next().data == "still here"


def _closed(connections: list[socket.socket]) -> int:
    count = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            count += connection.recv(1) == b""
        except BlockingIOError:
            pass
        except OSError:
            count += 1
    return count


def _healthy(worker: Worker) -> bool:
    try:
        return httpx.get(f"{worker.url}/healthz").status_code == 200
    except httpx.TransportError:
        return False
