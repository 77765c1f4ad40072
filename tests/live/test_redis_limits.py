"""The worker looks at how much Redis takes, and lets wait, and says what doesn't fit."""

from pathlib import Path

import pytest
import redis

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until

LIMIT = "client-output-buffer-limit"
COMPOSE = (f"--{LIMIT}", "pubsub", "64mb", "32mb", "60", "--proto-max-bulk-len", "16mb")


def said(worker: Worker) -> list[str]:
    return [line for line in worker.output.splitlines() if "proto-max-bulk-len" in line]


def started(directory: Path, server: RedisServer, **settings: int) -> Worker:
    return Worker(directory, server.url, log_level="debug", **settings)


def looks(worker: Worker) -> int:
    return worker.output.count("Redis' limits: ")


@pytest.mark.parametrize(
    ("options", "settings", "numbers"),
    [
        ((f"--{LIMIT}", "pubsub", "8mb", "4mb", "60"), {}, ("is 8388608 and should be at least 16777216", "1048576")),
        (COMPOSE, {"max_payload_bytes": 8_388_608}, ("is 67108864 and should be at least 134217728", "8392704")),
        (("--proto-max-bulk-len", "2mb"), {}, ("is 2097152 and should be at least 8388608",)),
    ],
    ids=["waiting", "messages", "bulk"],
)
def test_limits_that_do_not_fit_are_said_once(
    tmp_path: Path, options: tuple[str, ...], settings: dict[str, int], numbers: tuple[str, ...]
) -> None:
    with RedisServer(tmp_path, *options) as server, started(tmp_path, server, **settings) as worker:
        wait_until(lambda: said(worker), "a warning")
        before = looks(worker)
        with server.client() as client:
            client.client_kill_filter(_type="pubsub")
        wait_until(lambda: looks(worker) > before, "a look at the limits over another connection")
        [line] = said(worker)
        assert "WARNING" in line
        assert LIMIT in line
        assert all(number in line for number in numbers), line


def test_the_compose_files_limits_fit(tmp_path: Path) -> None:
    with RedisServer(tmp_path, *COMPOSE) as server, started(tmp_path, server) as worker:
        wait_until(lambda: looks(worker), "a look at the limits")
        assert not said(worker)


def test_redis_own_limits_are_no_reason_to_warn(tmp_path: Path) -> None:
    """But one message of more than 32 MiB disconnects everybody: that is said, and isn't a warning."""
    with RedisServer(tmp_path) as server, Worker(tmp_path, server.url) as worker:
        wait_until(lambda: said(worker), "a line")
        assert "WARNING" not in worker.output
        assert "33554432" in worker.output


def test_a_redis_that_does_not_tell_is_no_reason_to_say_anything(tmp_path: Path) -> None:
    with RedisServer(tmp_path, f"--{LIMIT}", "pubsub", "8mb", "4mb", "60") as server:
        with server.client() as client:
            client.acl_setuser("default", enabled=True, nopass=True, commands=["-config"])
        with started(tmp_path, server) as worker:
            wait_until(lambda: "doesn't tell its limits" in worker.output, "a line for debugging")
            assert not said(worker)
            assert "WARNING" not in worker.output


@pytest.mark.parametrize("bulk", ["512mb", "12mb"])
def test_a_message_that_redis_refuses_disconnects_no_worker(tmp_path: Path, bulk: str) -> None:
    """One that it takes does, if it is larger than what may wait."""
    small = (f"--{LIMIT}", "pubsub", "16mb", "16mb", "60")
    with (
        RedisServer(tmp_path, *small, "--proto-max-bulk-len", bulk) as server,
        Worker(tmp_path, server.url) as worker,
        open_stream(worker.url, "news") as stream,
        server.client() as client,
    ):
        message = b"x" * 33_554_432
        if bulk == "512mb":
            client.publish("news", message)
            wait_until(lambda: metric(worker, "redis_connects_total") >= 2, "the worker connects again")
        else:
            with pytest.raises(redis.RedisError):
                client.publish("news", message)
            client.publish("news", "next")
            assert stream.next().data == "next"
            assert metric(worker, "redis_connects_total") == 1
