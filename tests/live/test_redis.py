"""Redis: how it is reached, what happens while it can't be, and what it forbids."""

import json
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from testing.certificate import make_certificate
from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stacks import Stack
from testing.stream import open_stream
from testing.transient import transient
from testing.waiting import wait_until
from tests.live.faults.forwarder import Forwarder


@pytest.fixture(params=["direct", "portable"])
def outage_worker(request: pytest.FixtureRequest, private_redis: RedisServer, tmp_path: Path) -> Worker:
    return Worker(tmp_path, private_redis.url, delivery=request.param, subscribe_timeout=0.5)


def test_redis_killed_and_restarted_under_load(outage_worker: Worker, private_redis: RedisServer) -> None:
    with outage_worker as worker, _Load(private_redis, "news"):
        worker.wait_ready()
        with open_stream(worker.url, "news") as first, open_stream(worker.url, ["news", "other"]) as second:
            silences = []
            for _ in range(3):
                private_redis.kill()
                wait_until(lambda: not worker.ready(), "not ready without Redis")
                assert metric(worker, "streams") == 2, "streams stay open while Redis is away"
                private_redis.start()
                back = time.monotonic()
                wait_until(worker.ready, "subscribed again", 10)
                for stream in (first, second):  # this Redis knows nothing of what was before, so they begin anew
                    gap = next(event for event in iter(stream.next, None) if event.type == "gateway.gap")
                    assert json.loads(gap.data)["reason"] == "history_lost"
                private_redis.client().publish("news", "mark")
                for stream in (first, second):
                    while stream.next().data != "mark":
                        pass
                silences.append(time.monotonic() - back)
            # A pause of at most 1 s between attempts leaves room; the median, because a machine may stall.
            assert statistics.median(silences) < 2.0, silences
            assert metric(worker, "redis_connects_total") == 4


def test_new_streams_while_redis_is_away_are_told_to_come_back(
    outage_worker: Worker, private_redis: RedisServer
) -> None:
    with outage_worker as worker:
        worker.wait_ready()
        private_redis.kill()
        answer = httpx.get(f"{worker.url}/events", params={"channel": "news"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert transient(answer.text).reason == "redis_away"
        assert metric(worker, "turned_away_total", reason="redis_away") == 1
        assert metric(worker, "streams") == 0
        published = httpx.post(f"{worker.url}/publish/news", content=b"x")
        assert published.status_code == 503
        assert published.headers["retry-after"] == "1"
        assert "Redis did not take the message" in published.json()["detail"]


def test_a_lost_connection_alone_is_made_again(outage_worker: Worker, private_redis: RedisServer) -> None:
    with outage_worker as worker:
        worker.wait_ready()
        client = private_redis.client()
        with open_stream(worker.url, "news") as stream:
            client.client_kill_filter(_type="pubsub")
            lost = stream.next()
            assert (lost.type, json.loads(lost.data)["reason"]) == ("gateway.gap", "redis_lost")
            wait_until(lambda: client.publish("news", "back") > 0, "subscribed again")
            assert stream.next().data == "back"


def test_a_connection_lost_before_redis_has_answered(tmp_path: Path, private_redis: RedisServer) -> None:
    """What was asked for on one connection is never answered on the next."""
    private_redis.client().acl_setuser(
        "gw", enabled=True, passwords="+pw", keys=["*"], channels=["news*", "gateway.*"], categories=["+@all"]
    )
    with Forwarder(private_redis.port) as forwarder:
        url = forwarder.url.replace("redis://", "redis://gw:pw@")
        with (
            Worker(tmp_path, url, canary_interval=0, redis_connect_timeout=60) as worker,
            ThreadPoolExecutor() as pool,
        ):

            def ask(channel: str) -> str:
                with open_stream(worker.url, channel) as stream:
                    private_redis.client().publish(channel, f"on {channel}")
                    return stream.next().data

            for number in range(3):
                private_redis.send_signal(signal.SIGSTOP)
                waiting = [pool.submit(ask, f"news{number}.{place}") for place in range(3)]
                wait_until(lambda: metric(worker, "streams") == 3, "asked for")
                forwarder.cut()
                private_redis.send_signal(signal.SIGCONT)
                for place, each in enumerate(waiting):
                    assert each.result(20) == f"on news{number}.{place}"
                answer = httpx.get(f"{worker.url}/events?channel=secret")
                assert transient(answer.text).reason == "redis_denied"
                assert ask("news") == "on news"
            assert metric(worker, "redis_connects_total") == 4


def test_a_worker_started_before_its_redis_says_so_and_waits(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with Worker(tmp_path, server.url).start(wait=False) as worker:
        worker.wait_for_output("trying again until it works")
        assert httpx.get(f"{worker.url}/healthz").status_code == 200
        wait_until(lambda: metric(worker, "redis_failures_total", kind="ConnectionError") >= 3, "several attempts")
        assert worker.output.count("trying again until it works") == 1, "said once, not at every attempt"
        with server:
            worker.wait_ready()


def test_a_refused_password_is_said_and_a_right_one_later_helps(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "right") as server:
        url = server.url.replace("redis://", "redis://:wrong-secret@")
        with Worker(tmp_path, url, subscribe_timeout=0.2).start(wait=False) as worker:
            worker.wait_for_output("rejects the user or password in redis_url")
            assert "wrong-secret" not in worker.output
            answer = httpx.get(f"{worker.url}/readyz")
            assert answer.status_code == 503
            assert "rejects the user or password" in answer.json()["problems"]["redis"]
            assert "wrong-secret" not in answer.text
            stream = httpx.get(f"{worker.url}/events?channel=news")
            assert (stream.status_code, transient(stream.text).reason) == (200, "redis_away")
            redis.Redis(port=server.port, password="right").config_set("requirepass", "wrong-secret")
            worker.wait_ready()


def test_a_channel_redis_forbids_harms_no_other(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.client().acl_setuser(
            "gw", enabled=True, passwords="+pw", keys=["*"], channels=["news*"], categories=["+@all"]
        )
        url = server.url.replace("redis://", "redis://gw:pw@")
        with Worker(tmp_path, url, allowed_patterns="*") as worker:
            with open_stream(worker.url, "news") as stream:
                names = "channel=news1&channel=secret&channel=news2"
                answer = httpx.get(f"{worker.url}/events?{names}")
                assert (answer.status_code, transient(answer.text).reason) == (200, "redis_denied")
                assert transient(httpx.get(f"{worker.url}/events?pattern=*").text).reason == "redis_denied"
                # Longer than it takes to give a silent connection up.
                wait_until(lambda: server.client().info("commandstats")["cmdstat_ping"]["calls"] > 4, "signs of life")
                with open_stream(worker.url, ["news1", "news2"]) as others:
                    for name in ("news", "news1", "news2"):
                        server.client().publish(name, name)
                    assert stream.next().data == "news"
                    assert [event.data for event in others.take(2)] == ["news1", "news2"]
                    # Nothing is counted, for ticks are forbidden, too.
                    assert set(others.ids) == {"2.0.0"}
            worker.wait_for_output("does not allow this user to subscribe to gateway.tick.0")
            assert metric(worker, "redis_connects_total") == 1


def test_redis_by_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(tmp_path, "--unixsocket", str(path)), Worker(tmp_path, f"unix://{path}?db=1") as worker:
        _echo(worker, redis.Redis(unix_socket_path=str(path)))


def test_redis_by_tls_with_password_and_database(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    tls = ["--tls-port", "{port}", "--port", "0", "--tls-cert-file", str(made / "fullchain.pem")]
    tls += ["--tls-key-file", str(made / "privkey.pem"), "--tls-auth-clients", "no", "--requirepass", "p@ss/word"]
    server = RedisServer(tmp_path)
    at = server.command.index("--port")
    server.command[at : at + 2] = [word.format(port=server.port) for word in tls]
    url = f"rediss://:p%40ss%2Fword@127.0.0.1:{server.port}/2?ssl_ca_certs={made / 'fullchain.pem'}"
    with server, Worker(tmp_path, url, log_level="debug") as worker:
        _echo(worker, redis.Redis.from_url(url))
    with server, Worker(tmp_path, url.partition("?")[0]).start(wait=False) as worker:
        worker.wait_for_output("trying again until it works")
        assert "CERTIFICATE_VERIFY_FAILED" in worker.output or "certificate verify failed" in worker.output


def test_a_channel_prefix_is_put_before_and_never_shown(tmp_path: Path, redis_server: RedisServer) -> None:
    prefix = "app[1]*:"
    with Worker(tmp_path, redis_server.url, channel_prefix=prefix, allowed_patterns="*") as worker:
        client = redis_server.client()
        parameters = [("channel", "news"), ("pattern", "sport*"), ("events", "channel")]
        with open_stream(worker.url, params=parameters) as stream:
            client.publish("news", "not ours")
            client.publish("app1:sport", "not ours: the prefix is no pattern")
            client.publish(prefix + "news", "1")
            client.publish(prefix + "sports", "2")
            assert [(event.type, event.data) for event in stream.take(2)] == [("news", "1"), ("sports", "2")]
            answer = httpx.post(f"{worker.url}/publish/news", content=b"3")
            assert answer.json() == {"channel": "news", "receivers": 1}
            assert stream.next().data == "3"


def test_a_lingering_channel_can_be_had_again_at_any_moment(tmp_path: Path, redis_server: RedisServer) -> None:
    client = redis_server.client()
    with Worker(tmp_path, redis_server.url, linger=0.01) as worker:
        for number in range(60):  # hits every state between unsubscribing and subscribing again
            with open_stream(worker.url, "flicker") as stream:
                client.publish("flicker", str(number))
                assert stream.next().data == str(number)


def test_reserved_channels_are_not_delivered_through_patterns(stack: Stack) -> None:
    with open_stream(stack.url, params=[("pattern", "*")]) as stream:
        stack.publish("gateway.secret", "x")
        stack.publish(b"\xff\xfe".decode("latin-1"), "latin")
        stack.publish("open", "y")
        data = [stream.next().data, stream.next().data]
    assert data == ["latin", "y"]


class _Load:
    """Publishes without end, whether Redis is there or not."""

    def __init__(self, server: RedisServer, channel: str) -> None:
        self._server = server
        self._channel = channel
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        client = self._server.client()
        while not self._stop.wait(0.002):
            try:
                client.publish(self._channel, "load")
            except RedisConnectionError:
                continue

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _echo(worker: Worker, client: redis.Redis) -> None:
    with open_stream(worker.url, "news") as stream:
        client.publish("news", "hello")
        assert stream.next().data == "hello"
        httpx.post(f"{worker.url}/publish/news", content=b"again").raise_for_status()
        assert stream.next().data == "again"
