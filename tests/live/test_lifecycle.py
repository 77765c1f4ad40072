"""What is held is let go: disconnects, slow clients, limits, and the end of a worker."""

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.slow import Slow
from testing.stream import open_stream
from testing.transient import transient
from testing.waiting import wait_until

PATHS = ["direct", "portable"]
PLAIN = {"Accept-Encoding": "identity"}


def _descriptors(process: psutil.Process, server: RedisServer) -> int:
    """Its open ones, but for connections to Redis: how many its pool of those has depends on what came together."""
    ports = [getattr(each.raddr, "port", None) for each in process.net_connections("tcp")]
    return int(process.num_fds()) - ports.count(server.port)


@pytest.mark.parametrize("delivery", PATHS)
def test_2000_connects_and_disconnects_leave_nothing_behind(
    tmp_path: Path, redis_server: RedisServer, delivery: str
) -> None:
    with Worker(tmp_path, redis_server.url, delivery=delivery, linger=0.1) as worker:
        process = psutil.Process(worker.pid)
        for _ in range(3):  # what is allocated once, such as caches and arenas, is allocated now
            _connect_and_leave(worker, 500)
        _wait_idle(worker, redis_server)
        tasks, files = metric(worker, "tasks"), _descriptors(process, redis_server)
        memory = process.memory_info().rss
        for _ in range(4):
            _connect_and_leave(worker, 500)
        _wait_idle(worker, redis_server)
        assert metric(worker, "tasks") == tasks
        wait_until(lambda: _descriptors(process, redis_server) <= files, "descriptors back")
        grown = process.memory_info().rss - memory
        assert grown < 4_000_000, f"{grown / 2000:.0f} bytes for each connection that is gone"
        assert metric(worker, "streams_opened_total") == 3500


def _connect_and_leave(worker: Worker, count: int) -> None:
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", worker.port)))
            connection.sendall(b"GET /events?channel=churn-%d HTTP/1.1\r\nHost: x\r\n\r\n" % (number % 50))
        wait_until(lambda: metric(worker, "streams") == count, f"{count} streams open")
    wait_until(lambda: metric(worker, "streams") == 0, "all streams forgotten")


def _wait_idle(worker: Worker, redis_server: RedisServer) -> None:
    wait_until(lambda: metric(worker, "channels") == 0, "all channels given up")
    wait_until(lambda: not redis_server.client().pubsub_channels("churn-*"), "no subscription left in Redis")


@pytest.mark.parametrize("delivery", PATHS)
def test_a_client_that_does_not_read_is_dropped_and_costs_the_others_nothing(
    tmp_path: Path, redis_server: RedisServer, delivery: str
) -> None:
    payload = b"x" * 50_000
    with Worker(tmp_path, redis_server.url, delivery=delivery, queue_bytes=500_000, queue_events=100) as worker:
        with ExitStack() as stack, open_stream(worker.url, "busy") as healthy:
            tasks = metric(worker, "tasks")
            slow = stack.enter_context(Slow(worker, "channel=busy"))
            wait_until(lambda: metric(worker, "streams") == 2, "both open")
            sent = 0
            client = redis_server.client()
            while metric(worker, "streams_closed_total", reason="overflow") == 0:
                client.publish("busy", payload + b"%d" % sent)
                assert healthy.next().data == payload.decode() + str(sent)
                sent += 1
                assert sent < 1000, "the slow client was never dropped"
                assert metric(worker, "queued_bytes") <= 600_000
            wait_until(lambda: metric(worker, "tasks") <= tasks, "the tasks of its response ended")
            port = slow.socket.getsockname()[1]
            wait_until(lambda: port not in _peers(worker), "its connection closed, although it never reads")
            client.publish("busy", "after")
            assert healthy.next().data == "after"
        assert "stream dropped: overflow, " in worker.output


def _peers(worker: Worker) -> set[int]:
    """Ports of the other ends of its connections."""
    remote: list[Any] = [connection.raddr for connection in psutil.Process(worker.pid).net_connections()]
    return {address.port for address in remote if address}


def test_a_slow_client_that_reads_again_in_time_misses_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    count = 200
    client = redis_server.client()
    with (
        Worker(tmp_path, redis_server.url, queue_bytes=50_000_000, queue_events=1000) as worker,
        open_stream(worker.url, "busy", headers=PLAIN) as stream,
    ):
        for number in range(count):
            client.publish("busy", f"{number}:" + "x" * 50_000)
        wait_until(lambda: metric(worker, "queued_events") > 0, "the kernel's buffers full")
        got = [event.data.partition(":")[0] for event in stream.take(count)]
        assert got == [str(number) for number in range(count)]
        wait_until(lambda: metric(worker, "queued_bytes") == 0, "the queue empty again")
        client.publish("busy", "after")
        assert stream.next().data == "after"


def test_a_full_worker_tells_further_clients_to_come_back(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, max_streams=2, linger=0) as worker, ExitStack() as stack:
        stack.enter_context(open_stream(worker.url, "a"))
        second = stack.enter_context(ExitStack())
        second.enter_context(open_stream(worker.url, "a"))
        answer = httpx.get(f"{worker.url}/events?channel=a")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        reason, retry, _ = transient(answer.text)
        assert reason == "full"
        assert 5000 <= retry <= 10_000
        for id_, repeated in (("2.1a.2b.CeJIPLv7:1", "2.1a.2b.CeJIPLv7:1"), ("ž", "ž"), ("a\tb", None)):
            answer = httpx.get(f"{worker.url}/events?channel=a", headers={b"Last-Event-ID": id_.encode()})
            assert transient(answer.text).id == repeated
        assert httpx.get(f"{worker.url}/readyz").status_code == 503
        assert metric(worker, "turned_away_total", reason="full") == 4
        second.close()
        wait_until(worker.ready, "ready again")
        with open_stream(worker.url, "a"):
            pass


def test_the_limit_of_channels_counts_lingering_ones_last(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, max_channels=2, linger=3600) as worker:
        with open_stream(worker.url, ["a", "b"]):
            assert transient(httpx.get(f"{worker.url}/events?channel=c").text).reason == "full"
            with open_stream(worker.url, "a"):
                pass
        wait_until(lambda: metric(worker, "streams") == 0, "gone")
        with open_stream(worker.url, ["c", "d"]) as stream:
            wait_until(lambda: redis_server.client().publish("a", "x") == 0, "the lingering channel given up")
            redis_server.client().publish("d", "1")
            assert stream.next().data == "1"
        assert metric(worker, "channels") == 2


@pytest.fixture(params=PATHS)
def going(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[Worker]:
    """A worker that takes a while to go."""
    with Worker(tmp_path, redis_server.url, delivery=request.param, drain_window=0.5, shutdown_timeout=30) as worker:
        yield worker


def test_sigterm_ends_every_stream_cleanly(going: Worker) -> None:
    count = 20
    with ExitStack() as stack:
        streams = [stack.enter_context(open_stream(going.url, "a")) for _ in range(count)]
        with socket.create_connection(("127.0.0.1", going.port), timeout=20) as raw:
            raw.sendall(b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: metric(going, "streams") == count + 1, "all open")
            going.send_signal(signal.SIGTERM)
            for stream in streams:
                events = stream.rest()  # raises if the stream was cut off instead of ended
                assert [event.type for event in events] == ["gateway.closing"]
                assert stream.retry is not None
                assert 1000 <= stream.retry <= 3000
            answer = b""
            while piece := raw.recv(65536):
                answer += piece
            assert answer.endswith(b"0\r\n\r\n"), "no chunk terminator"
    assert going.wait() == 0
    assert "Traceback" not in going.output
    assert "ERROR" not in going.output


def test_a_draining_worker_takes_nobody(tmp_path: Path, redis_server: RedisServer) -> None:
    body = b'{"channels":["a"]}'
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        # Nothing but the shutdown closes an idle connection within the time of this test.
        Worker(
            tmp_path,
            redis_server.url,
            drain_window=50,
            shutdown_timeout=60,
            keepalive_timeout=3600,
            head_timeout=3600,
            body_timeout=3600,
        ) as worker,
        socket.create_connection(("127.0.0.1", worker.port), timeout=20) as idle,
        socket.create_connection(("127.0.0.1", worker.port), timeout=20) as silent,
        socket.create_connection(("127.0.0.1", worker.port), timeout=20) as asking,
        open_stream(worker.url, "a"),
        open_stream(worker.url, "a"),
    ):
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        healthy = b""
        while not healthy.endswith(b'{"status":"ok"}'):  # head and body may come one by one
            healthy += idle.recv(65536)
        assert healthy.startswith(b"HTTP/1.1 200 ")
        asking.sendall(head + body[:1])
        wait_until(lambda: metric(worker, "body_bytes") == 1, "the request begun")
        worker.send_signal(signal.SIGTERM)
        worker.wait_for_output("draining 2 streams")
        for connection in (idle, silent):
            assert connection.recv(65536) == b"", "an idle connection would bring a proxy's next client here"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{worker.url}/readyz")
        asking.sendall(body[1:])
        answer = b""
        while not answer.endswith(b"\n\n"):
            piece = asking.recv(65536)
            assert piece, answer
            answer += piece
        assert transient(answer.partition(b"\r\n\r\n")[2].decode()).reason == "draining"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, "a second signal leaves at once"
        assert "Traceback" not in worker.output


def test_a_worker_without_streams_goes_at_once(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, drain_window=50, shutdown_timeout=60) as worker:
        worker.send_signal(signal.SIGINT)
        assert worker.wait() == 0


def test_a_port_in_use_is_said(tmp_path: Path, redis_server: RedisServer, worker: Worker) -> None:
    for command in ("run", "dev"):
        second = Worker(tmp_path, redis_server.url, port=worker.port)
        second.command[-1] = command
        second.log = tmp_path / command
        assert _refusal(second) == (
            f"Error: port (--port, GATEWAY_PORT): {worker.port} on 127.0.0.1 is in use by another process."
        )


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "this machine has no address 192.0.2.1"), ("no.such.invalid", "is no address and no name of one")],
)
def test_a_host_that_is_not_here_is_said(tmp_path: Path, redis_server: RedisServer, host: str, words: str) -> None:
    refusal = _refusal(Worker(tmp_path, redis_server.url, host=host))
    assert refusal.startswith("Error: host (--host, GATEWAY_HOST): ")
    assert words in refusal


@pytest.mark.parametrize("case", ["no directory", "too long", "no socket", "not permitted", "in use", "in a file"])
def test_a_unix_socket_that_cannot_be_is_said(tmp_path: Path, redis_server: RedisServer, case: str) -> None:
    path = tmp_path / "worker.sock"
    with ExitStack() as stack:
        if case == "no directory":
            path, words = tmp_path / "missing" / "worker.sock", f"there is no directory {tmp_path}/missing"
        elif case == "too long":
            path, words = tmp_path / ("x" * 120), "bytes is too long; 107 is the limit"
        elif case == "no socket":
            path.write_text("precious")
            words = f"{path} is there already, and is no socket"
        elif case == "not permitted":
            path = Path("/proc/worker.sock")  # where root can't make files either
            words = "/proc/worker.sock"
        elif case == "in a file":
            (tmp_path / "file").touch()
            path, words = tmp_path / "file" / "worker.sock", f"there is no directory {tmp_path}/file"
        else:
            taken = stack.enter_context(socket.socket(socket.AF_UNIX))
            taken.bind(str(path))
            taken.listen()
            words = f"another process listens on {path}"
        refusal = _refusal(Worker(tmp_path, redis_server.url, unix_socket=path))
        assert refusal.startswith("Error: unix_socket (--unix-socket, GATEWAY_UNIX_SOCKET): ")
        assert words in refusal
        if case == "no socket":
            assert path.read_text() == "precious"


def _refusal(worker: Worker) -> str:
    """The one line that a worker says instead of starting."""
    with worker.start(wait=False):
        assert worker.wait() == 1
        lines = worker.output.splitlines()
    assert len(lines) == 1, worker.output
    return lines[0]


def test_the_socket_of_a_worker_that_was_killed_is_replaced(tmp_path: Path, redis_server: RedisServer) -> None:
    path = tmp_path / "worker.sock"
    for _ in range(2):
        with Worker(tmp_path, redis_server.url, unix_socket=path).start(wait=False) as worker:
            worker.wait_for_output(f"listens on {path}")
            worker.kill()
        worker.log.unlink()
        assert path.is_socket()
    with Worker(tmp_path, redis_server.url, unix_socket=path).start(wait=False) as worker:
        worker.wait_for_output(f"listens on {path}")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://gateway/healthz").status_code == 200


def test_listening_on_a_unix_socket(tmp_path: Path, redis_server: RedisServer) -> None:
    path = tmp_path / "worker.sock"
    with Worker(tmp_path, redis_server.url, unix_socket=path).start(wait=False) as worker:
        worker.wait_for_output(f"listens on {path}")
        with open_stream("http://gateway", "a", transport={"uds": str(path)}) as stream:
            wait_until(lambda: redis_server.client().publish("a", "1"), "subscribed")
            assert stream.next().data == "1"


def test_pings_arrive_on_an_idle_stream(tmp_path: Path, redis_server: RedisServer) -> None:
    for delivery in PATHS:
        with (
            Worker(tmp_path, redis_server.url, delivery=delivery, ping_interval=0.2) as worker,
            httpx.stream("GET", f"{worker.url}/events?channel=a", headers=PLAIN, timeout=20) as response,
        ):
            body = b""
            for piece in response.iter_raw():
                body += piece
                if body.endswith(b":\n" * 3):
                    break
            # Comments without a blank line, of which some clients would make an empty message.
            assert re.fullmatch(rb"id: \S+\nevent: gateway\.open\nretry: \d+\ndata: \S+\n\n(:\n)+", body), body
            assert metric(worker, "pings_total") >= 3
