"""Faults that were found by looking for them: each has the test that would have found it."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.slow import Slow
from testing.stream import open_stream
from testing.transient import transient
from testing.waiting import wait_until


def _connect(worker: Worker, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", worker.port), timeout=20)
    connection.sendall(request)
    return connection


def _get(channel: str) -> bytes:
    return b"GET /events?channel=%b HTTP/1.1\r\nHost: x\r\n\r\n" % channel.encode()


def _acl(server: RedisServer, *channels: str) -> None:
    server.client().acl_setuser(
        "gw",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        reset_channels=True,
        channels=channels,
        categories=["+@all"],
    )


def test_a_permission_taken_away_ends_the_stream_and_given_back_helps(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        _acl(server, "news", "secret", "gateway.*")
        url = server.url.replace("redis://", "redis://gw:pw@")
        with (
            Worker(tmp_path, url) as worker,
            open_stream(worker.url, "secret") as stream,
            open_stream(worker.url, "news") as other,
        ):
            _acl(server, "news", "gateway.*")  # Redis closes the connection, for it listens to what it may not
            ended = stream.rest()
            assert {event.type for event in ended} <= {"gateway.gap", "gateway.closing"}, "an open stream stays deaf"
            assert ended[-1].type == "gateway.closing"
            # An EventSource that got anything but 200 would never come back.
            answer = httpx.get(f"{worker.url}/events?channel=secret", headers={"Last-Event-ID": stream.last_event_id})
            told = transient(answer.text)
            assert (answer.status_code, told.reason, told.id) == (200, "redis_denied", stream.last_event_id)
            server.client().publish("secret", "unheard")
            _acl(server, "news", "secret", "gateway.*")
            with open_stream(worker.url, "secret", headers={"Last-Event-ID": told.id}) as again:
                assert again.next().type == "gateway.gap", "what was published meanwhile is not lost in silence"
                server.client().publish("secret", "back")
                assert again.next().data == "back"
            server.client().publish("news", "still")
            assert other.next().type == "gateway.gap"
            assert other.next().data == "still"


def test_clients_whose_transport_is_full_from_the_beginning_are_bounded_too(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = {"queue_bytes": 100_000, "queue_events": 20, "console": True}
    with Worker(tmp_path, redis_server.url, **settings) as worker, ExitStack() as stack:
        for pages in range(30, 60):
            # Answers to the requests before it fill the transport by different amounts as the stream begins.
            request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * pages + _get("busy")
            stack.enter_context(_connect(worker, request))
        with open_stream(worker.url, "busy") as healthy:
            wait_until(lambda: metric(worker, "streams") >= 1, "open")
            for number in range(200):
                redis_server.client().publish("busy", f"{number}:" + "x" * 60_000)
                assert healthy.next().data.startswith(f"{number}:")
            assert metric(worker, "streams") == 1, "a client that never reads was kept"
            assert metric(worker, "queued_bytes") <= 200_000


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_clients_that_vanish_at_any_moment_are_no_errors(
    tmp_path: Path, redis_server: RedisServer, delivery: str
) -> None:
    with Worker(tmp_path, redis_server.url, delivery=delivery, linger=0) as worker:
        for number in range(300):
            with _connect(worker, _get(f"vanish-{number}")) as connection:
                if number % 3 == 1:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST, not FIN
        wait_until(lambda: metric(worker, "streams") == 0, "all forgotten")
        assert worker.ready()
    if delivery == "direct":
        assert "Traceback" not in worker.output
        assert "ERROR" not in worker.output


def test_a_client_that_leaves_while_redis_is_silent_is_forgotten_at_once(
    tmp_path: Path, private_redis: RedisServer
) -> None:
    with Worker(tmp_path, private_redis.url, subscribe_timeout=600, canary_interval=0) as worker:
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with ExitStack() as stack:
                for number in range(20):
                    stack.enter_context(_connect(worker, _get(f"wait-{number}")))
                wait_until(lambda: metric(worker, "streams") == 20, "waiting for Redis")
            wait_until(lambda: metric(worker, "streams") == 0, "forgotten")
        finally:
            private_redis.send_signal(signal.SIGCONT)


def test_who_waits_for_redis_when_the_worker_goes_is_told_to_come_back(
    tmp_path: Path, private_redis: RedisServer
) -> None:
    settings = {"subscribe_timeout": 600, "canary_interval": 0, "drain_window": 0, "shutdown_timeout": 5}
    with Worker(tmp_path, private_redis.url, **settings) as worker:
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with _connect(worker, _get("a")) as connection:
                wait_until(lambda: metric(worker, "streams") == 1, "waiting for Redis")
                worker.send_signal(signal.SIGTERM)
                answer = b""
                while not answer.endswith(b"\n\n"):
                    piece = connection.recv(65536)
                    assert piece, answer
                    answer += piece
        finally:
            private_redis.send_signal(signal.SIGCONT)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert transient(answer.partition(b"\r\n\r\n")[2].decode()).reason == "draining"


def test_many_publish_at_once(worker: Worker, redis_server: RedisServer) -> None:
    with httpx.Client(limits=httpx.Limits(max_connections=60)) as client, ThreadPoolExecutor(60) as pool:
        redis_server.client().client_pause(300)
        answers = list(pool.map(lambda _: client.post(f"{worker.url}/publish/a", content=b"x"), range(60)))
    assert {answer.status_code for answer in answers} == {200}


def test_a_channel_name_heard_through_a_pattern_forges_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, allowed_patterns="*") as worker:
        with open_stream(worker.url, params=[("pattern", "forge.*"), ("events", "channel")]) as stream:
            client = redis_server.client()
            client.publish("forge.a\ndata: forged\n\nevent: gateway.closing\ndata: x", "bad")
            client.publish("forge.b", "good")
            event = stream.next()
        assert (event.type, event.data) == ("forge.b", "good")
        assert metric(worker, "refused_messages_total", reason="bad_channel") == 1


@pytest.fixture(scope="module")
def named(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    names = ["localhost", "127.0.0.1", "[::1]", "*.example.com"]
    with Worker(tmp_path_factory.mktemp("named"), redis_server.url, allowed_hosts=names, console=True) as worker:
        yield worker


@pytest.mark.parametrize(
    "host",
    ["attacker.example", "attacker.example:80", "localhost.attacker.example", "example.com", ".example.com",
     "a.example.com.evil", "127.0.0.1.nip.io", "localhost@evil", "[::2]", "localhost:80:80", "", "localhost:evil",
     "evil/.example.com", "evil?.example.com", "evil#.example.com", "evil@a.example.com", "evil .example.com",
     "evil\t.example.com", "evil:80.example.com", "evil\\.example.com", "evil,a.example.com", "é.example.com"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/events?channel=a"), ("GET", "/events/a"), ("POST", "/events"), ("POST", "/publish/a"), ("GET", "/"),
     ("GET", "/metrics"), ("OPTIONS", "/publish/a")],
)  # fmt: skip
def test_no_other_name_is_answered_where_names_are_given(named: Worker, method: str, path: str, host: str) -> None:
    """A page whose own name leads to this machine would have the rights of a page of this gateway."""
    origin = f"http://{host}"
    headers = {b"Host": host.encode("latin-1"), b"Origin": origin.encode("latin-1")}
    answer = httpx.request(method, named.url + path, content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "allowed_hosts" in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
        "a.b.example.com",
        "a_b-1.Example.com:8080",
    ],
)
def test_the_names_given_are_answered(named: Worker, host: str) -> None:
    with httpx.stream("GET", f"{named.url}/events?channel=a", headers={"Host": host}) as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://evil.example/events/a", b"localhost", b"400"),
        (b"http://evil.example?channel=a", b"localhost", b"400"),
        (b"http://localhost@evil.example/events/a", b"localhost", b"400"),
        (b"http://evil.example:80/events/localhost", b"localhost", b"400"),
        (b"http://evil.example/nothing?x=http://localhost/", b"localhost", b"400"),
        (b"http://localhost/nothing", b"evil.example", b"404"),
        (b"HTTP://LOCALHOST:8080/nothing?x=http://evil.example/", b"localhost", b"404"),
        (b"http://[::1]:8080/nothing", b"localhost", b"404"),
        (b"//evil.example/nothing", b"localhost", b"404"),
    ],
)
def test_the_host_of_an_absolute_target_is_the_one_that_counts(
    named: Worker, target: bytes, host: bytes, status: bytes
) -> None:
    """RFC 9112, 3.2.2: whoever passes the request on, or answers it, ignores the header then."""
    request = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (target, host)
    with _connect(named, request) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 %b " % status)


def test_a_page_is_of_the_host_of_an_absolute_target(worker: Worker) -> None:
    statuses = []
    for target in (b"http://evil.example/publish/a", b"http://good.example/publish/a"):
        head = b"POST %b HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://good.example\r\n" % target
        with _connect(worker, head + b"Content-Length: 1\r\nConnection: close\r\n\r\nx") as connection:
            statuses.append(connection.recv(4096)[9:12])
    assert statuses == [b"403", b"200"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_orchestrators_may_ask_by_any_name(named: Worker, path: str) -> None:
    assert httpx.get(f"{named.url}{path}", headers={"Host": "10.1.2.3:8080"}).status_code == 200


def test_two_names_in_one_request_are_refused(named: Worker) -> None:
    with _connect(
        named, b"GET /events/a HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n"
    ) as one:
        assert one.recv(4096).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/events/a"), ("GET", "/events"), ("GET", "/nothing"), ("PUT", "/events"), ("POST", "/publish/a"),
     ("GET", "/"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/events/..%2f")],
)  # fmt: skip
def test_no_page_can_load_what_is_here_as_something_else(named: Worker, method: str, path: str) -> None:
    """As a script, for example, whatever is published: a browser that sniffs doesn't look at the type."""
    with httpx.stream(method, named.url + path, headers={"Host": "localhost"}, content=b"x") as answer:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_the_console_can_be_framed_by_nobody(named: Worker) -> None:
    answer = httpx.get(named.url, headers={"Host": "localhost"})
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9", "http://[", "null", "http://evil.example", "127.0.0.1"])
def test_origins_that_may_not_publish(worker: Worker, origin: str) -> None:
    answer = httpx.post(f"{worker.url}/publish/a", content=b"x", headers={"Origin": origin})
    assert answer.status_code == 403


@pytest.mark.parametrize("name", ["Origin", "Host"])
def test_two_origins_are_none(worker: Worker, name: str) -> None:
    """The last one counted, while whoever stands in front may have judged the first."""
    good = f"127.0.0.1:{worker.port}"
    values = {"Origin": f"http://{good}", "Host": good}
    for evil_first in (True, False):
        doubled = [("http://" if name == "Origin" else "") + "evil.example", values[name]]
        lines = [(each, value) for each, value in values.items() if each != name]
        lines += [(name, value) for value in (doubled if evil_first else reversed(doubled))]
        head = "POST /publish/a HTTP/1.1\r\n" + "".join(f"{each}: {value}\r\n" for each, value in lines)
        with _connect(worker, f"{head}Content-Length: 1\r\nConnection: close\r\n\r\nx".encode()) as connection:
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert f"2 headers {name}".encode() in answer


def test_endless_trailers_are_cut_off(worker: Worker) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"

    def send_trailers(connection: socket.socket) -> None:
        for number in range(20_000):
            connection.sendall(b"X-%d: %b\r\n" % (number, b"x" * 1000))

    with _connect(worker, head) as connection, pytest.raises(OSError):
        send_trailers(connection)


def test_a_disconnect_is_noticed_behind_a_pipelined_request(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, delivery="portable", ping_interval=0) as worker:
        with ExitStack() as stack:
            for _ in range(10):
                request = _get("a") + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
                stack.enter_context(_connect(worker, request))
            wait_until(lambda: metric(worker, "streams") == 10, "open")
        wait_until(lambda: metric(worker, "streams") == 0, "forgotten")


def test_asking_for_a_websocket_fills_no_log(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url) as worker:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
        for _ in range(3):
            httpx.get(f"{worker.url}/healthz", headers=headers)
        assert "WARNING" not in worker.output


def test_a_flood_of_bad_requests_is_a_few_lines(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url) as worker:
        began = time.monotonic()
        for _ in range(500):
            with _connect(worker, b"\x16\x03\x01\r\n\r\n") as connection:
                assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        seconds = time.monotonic() - began
        assert metric(worker, "bad_requests_total", reason="invalid") == 500
        assert metric(worker, "warnings_total", logger="uvicorn.error") == 500
        lines = worker.output.count("Invalid HTTP request")
        assert 1 <= lines <= seconds + 1
        wait_until(lambda: _one_more(worker), "the number of those held back")


def _one_more(worker: Worker) -> bool:
    with _connect(worker, b"\x16\r\n\r\n") as connection:
        connection.recv(65536)
    return re.search(r"Invalid HTTP request received\. \(\d+ more like this before\)", worker.output) is not None


def test_garbage_behind_a_request_that_waits_is_no_error_of_ours(tmp_path: Path, private_redis: RedisServer) -> None:
    with Worker(tmp_path, private_redis.url, subscribe_timeout=600, canary_interval=0) as worker:
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with _connect(worker, _get("a")) as connection:
                wait_until(lambda: metric(worker, "streams") == 1, "waiting for Redis")
                connection.sendall(b"\x16\x03\x01\r\n\r\n")
                assert connection.recv(65536) == b"", "an error that the client would take for its stream"
            wait_until(lambda: metric(worker, "streams") == 0, "forgotten")
        finally:
            private_redis.send_signal(signal.SIGCONT)
        assert "without starting response" not in worker.output


def test_many_slow_clients_are_a_few_lines(tmp_path: Path, redis_server: RedisServer) -> None:
    count = 50
    with Worker(tmp_path, redis_server.url, queue_events=1, queue_bytes=1024) as worker, ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Slow(worker, "channel=busy"))
        wait_until(lambda: metric(worker, "streams") == count, "all open")
        began = time.monotonic()
        while metric(worker, "streams"):
            redis_server.client().publish("busy", "x" * 500_000)
        seconds = time.monotonic() - began
        assert metric(worker, "streams_closed_total", reason="overflow") == count
        assert 1 <= worker.output.count("stream dropped: overflow, ") <= seconds + 1


def test_tokens_stay_out_of_the_access_log(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, access_log=True) as worker:
        for query in ("channel=&token=SECRET", "token=SECRET&x=1", "%74oken=SECRET"):
            httpx.get(f"{worker.url}/events?{query}")
        wait_until(lambda: worker.output.count("/events") == 3, "three lines")
        assert "SECRET" not in worker.output
        assert re.search(r"GET /events\?channel=&token=…", worker.output)


def test_an_answer_nobody_expects_does_not_leave_the_worker_deaf(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as fake:
        fake.settimeout(20)
        url = f"redis://127.0.0.1:{fake.getsockname()[1]}"
        with Worker(tmp_path, url, canary_interval=0).start(wait=False) as worker:
            accepted = 0
            while accepted < 3:  # it tries again, whatever comes
                connection, _ = fake.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n*0\r\n")
                    accepted += 1
            assert httpx.get(f"{worker.url}/readyz").status_code == 503


def test_gap_events_name_channel_and_reason(worker: Worker, channel: str) -> None:
    with open_stream(worker.url, channel, headers={"Last-Event-ID": "x"}) as stream:
        assert json.loads(stream.next().data) == {"channel": channel, "reason": "unknown_id", "since": "x"}
