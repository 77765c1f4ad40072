"""Fault 13: settings at their ends, and the function library."""

import threading

import pytest
import redis

from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, finish, plain, subscribers, wait_functions

_OLD_LIBRARY = """#!lua name=gateway
redis.register_function('gateway_publish', function() return '1790000000123-0' end)
"""


def test_a_durable_resume_on_a_busy_channel_without_a_memory(
    start: Start, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    """With history_events=0 it said `history_unavailable`."""
    own, shared = channel + "own", channel + "shared"
    worker = start(history_events=0, durable_channels=own)
    wait_functions(publisher)
    with Client(own, shared) as client, Client(own) as single, Client(own) as holder:
        for each in (client, single, holder):
            each.open(worker)
        durable(publisher, own, ["0"])
        for each in (client, single):
            assert each.take(1) == ["0"]
            each.leave()
        started = threading.Event()

        def publish() -> None:
            with redis_server.client() as another:
                for number in range(1, 401):
                    durable(another, own, [str(number)])
                    if number == 50:
                        started.set()

        thread = threading.Thread(target=publish)
        thread.start()
        assert started.wait(20)
        for _ in range(5):
            for each in (client, single):
                each.open(worker)
                each.leave()
        client.open(worker)
        single.open(worker)
        thread.join()
        expected = [str(number) for number in range(401)]
        client.until("400")
        single.until("400")
        assert client.messages == single.messages == expected
        assert single.gaps == []
        assert set(client.gaps) <= {f"gap {shared} not_kept"}


@pytest.mark.parametrize("pattern", [False, True], ids=["channels", "pattern"])
def test_a_rolling_update_without_lingering(
    start: Start, publisher: redis.Redis, channel: str, pattern: bool
) -> None:
    """With linger=0, what a new worker took over was given up at once."""
    old = start(linger=0)
    with Client(*([] if pattern else [channel, channel + "2"]), patterns=[channel + "*"] * pattern) as client:
        client.open(old)
        plain(publisher, channel, ["1"])
        assert client.take(1) == ["1"]
        new = start(linger=0)
        plain(publisher, channel + "2", ["2"])
        finish(old)
        client.rest()
        if not pattern:
            assert subscribers(publisher, channel) == 1
        plain(publisher, channel, ["3"])
        missed = client.open(new)
        assert client.events == ["1", "2", *[each for each in missed if each != "2"]]
        assert "3" in missed
        assert client.gaps == []


def test_an_older_workers_library_never_replaces_this_one(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """An old worker that connected again took the functions back in the middle of an update."""
    with private_redis.client() as client:
        client.function_load(_OLD_LIBRARY)
        worker = start(private_redis.url)
        wait_until(lambda: not _has_library(client, "gateway"), "the old library is replaced")
        with pytest.raises(redis.ResponseError, match="already exists"):
            client.function_load(_OLD_LIBRARY, replace=True)
        with Client(channel) as stream:
            stream.open(worker)
            durable(client, channel, ["1"])
            assert stream.take(1) == ["1"]
            position = client.fcall("gateway_publish", 1, channel, "2")
            assert position.count(b".") == 2
            assert stream.take(1) == ["2"]


def test_functions_come_back(start: Start, private_redis: RedisServer, channel: str) -> None:
    """FUNCTION FLUSH broke FCALL until a worker was restarted."""
    with private_redis.client() as client:
        worker = start(private_redis.url)
        wait_functions(client)
        with Client(channel, channel + "shared") as stream:
            stream.open(worker)
            durable(client, channel, ["1"])
            stream.take(1)
            client.function_flush()
            client.script_flush()
            plain(client, channel + "shared", ["2"])
            assert stream.open(worker) in ([], ["2"])
            wait_functions(client)
            durable(client, channel, ["3"])
            assert stream.until("3")[-1] == "3"
            assert stream.events == ["1", "2", "3"]


def _has_library(client: redis.Redis, name: str) -> bool:
    return bool(client.function_list(name))
