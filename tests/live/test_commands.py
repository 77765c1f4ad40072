"""The commands, as a person uses them."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.http import metric
from testing.process import Process, free_port
from testing.servers import RedisServer, Worker
from testing.stream import Received, open_stream
from testing.waiting import wait_until

GATEWAY = [sys.executable, "-m", "gateway"]


def _gateway(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GATEWAY, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


class Dev(Process):
    """`gateway dev` on ports nobody uses."""

    def __init__(self, directory: Path, redis_port: int, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        redis_url = f"redis://127.0.0.1:{redis_port}"
        super().__init__(
            [*GATEWAY, "dev", "--port", str(self.port), "--redis-url", redis_url, *options], directory / "dev.log"
        )


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """`gateway dev` where no Redis answers."""
    with Dev(tmp_path, free_port()) as running:
        running.wait_for_output("Stop with Ctrl-C")
        yield running


def test_dev_brings_its_own_redis_that_redis_cli_can_talk_to(dev: Dev) -> None:
    assert f"Open     {dev.url}" in dev.output
    assert "fakeredis" in dev.output
    command = re.search(r"redis-cli.* PUBLISH news hello", dev.output)
    assert command is not None
    with open_stream(dev.url, "news") as stream:
        said = subprocess.run(command[0].split(), capture_output=True, text=True, timeout=20, check=True)
        assert said.stdout.strip() in ("1", "(integer) 1")
        assert stream.next().data == "hello"
        httpx.post(f"{dev.url}/publish/news", content=b"over http").raise_for_status()
        assert stream.next().data == "over http"
        other = re.search(r"gateway publish.* news hello", dev.output)
        assert other is not None
        assert _gateway(*other[0].split()[1:]).returncode == 0
        assert stream.next().data == "hello"
    page = httpx.get(dev.url)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    with open_stream(dev.url, params=[("pattern", "n*")]):
        pass


def test_dev_ends_with_ctrl_c(dev: Dev) -> None:
    with open_stream(dev.url, "news") as stream:
        dev.send_signal(signal.SIGINT)
        assert [event.type for event in stream.rest()] == ["gateway.closing"]
    assert dev.wait() == 0
    assert "Traceback" not in dev.output


def test_dev_uses_a_redis_that_is_there(tmp_path: Path, redis_server: RedisServer) -> None:
    with Dev(tmp_path, redis_server.port) as running:
        running.wait_for_output("Stop with Ctrl-C")
        assert "fakeredis" not in running.output
        with open_stream(running.url, "news") as stream:
            redis_server.client().publish("news", "real")
            assert stream.next().data == "real"


def test_dev_does_not_hide_a_redis_that_refuses(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "x") as server, Dev(tmp_path, server.port) as running:
        assert running.wait() == 2
        assert "refuses" in running.output
        assert "Traceback" not in running.output


def test_dev_takes_the_next_free_port(tmp_path: Path, redis_server: RedisServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 8080)) if _free(8080) else None
        taken.listen()
        command = [*GATEWAY, "dev", "--redis-url", redis_server.url]
        with Process(command, tmp_path / "dev.log") as running:
            running.wait_for_output("Stop with Ctrl-C")
            port = re.search(r"Open +http://localhost:(\d+)", running.output)
            assert port is not None
            assert port[1] != "8080"
            assert httpx.get(f"http://localhost:{port[1]}/healthz").status_code == 200


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_publish(worker: Worker, redis_server: RedisServer, channel: str) -> None:
    at = ("--redis-url", redis_server.url)
    with open_stream(worker.url, channel) as stream:
        done = _gateway("publish", channel, "žluť", *at)
        assert (done.returncode, done.stdout) == (
            0,
            f"1 message published on {channel}, received by 1 Redis connection(s).\n",
        )
        assert stream.next() == Received("žluť")
        assert _gateway("publish", channel, '{"a":1}', "--event", "tick", "--id", "7", *at).returncode == 0
        assert stream.next() == Received('{"a":1}', "tick", "7")
        assert _gateway("publish", channel, "x", "--id", "8", *at).returncode == 0
        assert stream.next() == Received("x", "message", "8")
        done = _gateway("publish", channel, "-", "--json", *at, stdin="one\ntwo\r\n\nlast")
        assert json.loads(done.stdout) == {"channel": channel, "messages": 4, "receivers": 1}
        assert [event.data for event in stream.take(4)] == ["one", "two", "", "last"]
        done = _gateway("publish", channel, "kept", "--durable", "--json", *at)
        assert stream.next().data == "kept"
        assert stream.last_event_id == json.loads(done.stdout)["id"]
        assert _gateway("publish", channel, "last", *at).returncode == 0
        assert stream.next().data == "last", "it was published once"
    listed = _gateway("listen", channel, "--url", worker.url, "--history", "2", "--count", "1", "--json")
    assert json.loads(listed.stdout)["data"] == "kept"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gateway.x", "y"], "the gateway's own"),
        (["a", "y", "--event", "gateway.gap"], "the gateway's own"),
        (["a", "x" * 100_000, "--id", "1\n2"], "must not contain CR, LF or NUL"),
        (["a", "b", "--redis-url", "redis://127.0.0.1:1"], "Redis did not take the message"),
    ],
)
def test_publish_says_what_is_wrong(arguments: list[str], words: str, redis_server: RedisServer) -> None:
    if "--redis-url" not in arguments:
        arguments = [*arguments, "--redis-url", redis_server.url]
    done = _gateway("publish", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_listen_prints_what_comes(worker: Worker, redis_server: RedisServer, channel: str, tmp_path: Path) -> None:
    command = [*GATEWAY, "listen", channel, "--url", worker.url, "--count", "2", "--json"]
    # With a listener there already, one more has joined as soon as it is counted.
    with open_stream(worker.url, channel), Process(command, tmp_path / "listen.log") as listening:
        wait_until(lambda: metric(worker, "streams") == 2, "listening")
        client = redis_server.client()
        client.publish(channel, "žluť")
        client.publish(channel, '{"event":"tick","data":"2","id":"7"}')
        assert listening.wait() == 0
    first, second = [json.loads(line) for line in listening.output.splitlines()]
    assert (first["event"], first["data"]) == ("message", "žluť")
    assert second == {"event": "tick", "id": "7", "data": "2"}


def test_listen_ends_with_its_channels(worker: Worker, channel: str, tmp_path: Path) -> None:
    command = [*GATEWAY, "listen", channel, "--url", worker.url]
    with open_stream(worker.url, channel), Process(command, tmp_path / "listen.log") as listening:
        wait_until(lambda: metric(worker, "streams") == 2, "listening")
        assert httpx.post(f"{worker.url}/publish/{channel}?end=1", content="last").status_code == 200
        assert listening.wait() == 0
    *events, over = listening.output.splitlines()
    assert all(line.endswith(end) for line, end in zip(events, ("last", f'{{"channel":"{channel}"}}'), strict=True))
    assert over == "That is over: nothing more is to come."


def test_listen_reconnects(private_redis: RedisServer, tmp_path: Path) -> None:
    worker = Worker(tmp_path, private_redis.url, retry_min=0.05, retry_max=0.1, drain_window=0)
    client = private_redis.client()
    with worker, Process([*GATEWAY, "listen", "news", "--url", worker.url], tmp_path / "listen.log") as listening:

        def heard(text: str) -> bool:
            client.publish("news", text)
            return text in listening.output

        wait_until(lambda: heard("first"), "listening")
        worker.stop()
        listening.wait_for_output("gateway.closing")
        worker.start()
        wait_until(lambda: heard("second"), "listening again")
        # What was published meanwhile, nobody has heard.
        assert "not_kept" in listening.output
        assert "gateway.open" not in listening.output


def test_listen_says_why_it_cannot(worker: Worker) -> None:
    done = _gateway("listen", "gateway.x", "--url", worker.url)
    assert done.returncode == 1
    assert "the gateway's own" in done.stderr
    assert _gateway("listen").returncode == 2
