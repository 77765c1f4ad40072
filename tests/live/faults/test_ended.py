"""Ends under faults: nobody stays on a stream that is over, whatever was lost of the news."""

import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis

from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until
from tests.live.faults.conftest import Start
from tests.live.faults.forwarder import Forwarder
from tests.live.faults.publishing import durable, plain, wait_functions


def end(client: redis.Redis, channel: str) -> None:
    client.fcall("gateway_end", 1, channel)


def is_over(worker: Worker, channel: str, last_event_id: str = "") -> bool:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with httpx.stream("GET", f"{worker.url}/events?channel={channel}", headers=headers) as answer:
        return answer.status_code == 204


@pytest.mark.parametrize("others", [True, False], ids=["another worker heard it", "nobody heard it"])
def test_an_end_while_the_connection_was_lost(
    start: Start, private_redis: RedisServer, channel: str, others: bool
) -> None:
    """All kinds of streams at once; the worker reads the end in Redis, or has it from another worker."""
    client = private_redis.client()
    own, shared = f"{channel}own", f"{channel}shared"
    with Forwarder(private_redis.port) as forwarder, ExitStack() as opened:
        worker = start(forwarder.url, redis_backoff_max=0.1)
        wait_functions(client)
        if others:
            opened.enter_context(open_stream(start(private_redis.url).url, [own, shared]))
        single, both, wild, mixed = (
            opened.enter_context(open_stream(worker.url, names, params=params))
            for names, params in (
                ([own], []), ([own, shared], []),
                ([], [("pattern", f"{own}*")]), ([shared], [("pattern", f"{own}*")]),
            )
        )  # fmt: skip
        durable(client, own, ["1"])
        assert [stream.next().data for stream in (single, both, wild, mixed)] == ["1"] * 4
        forwarder.target = 1  # nobody listens there
        forwarder.cut()
        wait_until(lambda: not worker.ready(), "the connection is lost")
        durable(client, own, ["2"])
        end(client, own)
        end(client, shared)
        forwarder.target = private_redis.port
        for stream in (single, both):
            assert [event.data for event in stream.rest() if event.type == "message"] == ["2"]
        for stream in (wild, mixed):
            events = [stream.next()]
            while events[-1].data != f'{{"channel":"{own}"}}':
                events.append(stream.next())
            assert [event.data for event in events if event.type == "message"] == ["2"]
        assert is_over(worker, own, single.last_event_id)
        assert is_over(worker, shared)


def test_the_worker_is_killed(start: Start, publisher: redis.Redis, channel: str) -> None:
    """With the only memory of what was plain; the end is in Redis."""
    worker = start()
    wait_functions(publisher)
    with open_stream(worker.url, channel) as stream:
        durable(publisher, channel, ["1"])
        stream.next()
        worker.kill()
        durable(publisher, channel, ["2"])
        end(publisher, channel)
    other = start()
    with open_stream(other.url, channel, headers={"Last-Event-ID": stream.last_event_id}) as back:
        assert [event.data for event in back.rest() if event.type == "message"] == ["2"]
    assert is_over(other, channel, back.last_event_id)


def test_a_worker_that_stood_still(start: Start, publisher: redis.Redis, channel: str) -> None:
    worker = start()
    wait_functions(publisher)
    with open_stream(worker.url, channel) as stream:
        worker.send_signal(signal.SIGSTOP)
        durable(publisher, channel, ["1"])
        end(publisher, channel)
        worker.send_signal(signal.SIGCONT)
        assert [event.type for event in stream.rest()] == ["message", "gateway.ended"]


def test_redis_restarts_with_its_data(start: Start, tmp_path: Path, channel: str) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    with server, ExitStack() as opened:
        client = server.client()
        worker = start(server.url, redis_backoff_max=0.1)
        wait_functions(client)
        stays = opened.enter_context(open_stream(worker.url, [f"{channel}a", f"{channel}b"]))
        durable(client, f"{channel}a", ["1"])
        end(client, f"{channel}a")
        assert [event.type for event in stays.take(2)] == ["message", "gateway.ended"]
        server.stop()
        server.start()
        wait_until(worker.ready, "connected again")
        assert is_over(worker, f"{channel}a")
        assert not is_over(worker, f"{channel}b")
        wait_functions(client)
        end(client, f"{channel}b")
        assert [event.type for event in stays.rest()][-1] == "gateway.ended"
        assert is_over(worker, f"{channel}b", stays.last_event_id)


def test_redis_loses_everything(start: Start, private_redis: RedisServer, channel: str) -> None:
    """Then nobody knows of an end any more; a stream that was open goes on."""
    client = private_redis.client()
    worker = start(private_redis.url, redis_backoff_max=0.1)
    wait_functions(client)
    end(client, channel)
    assert is_over(worker, channel)
    private_redis.stop()
    private_redis.start()
    wait_until(worker.ready, "connected again")
    wait_until(lambda: not is_over(worker, channel), "it is forgotten")


def test_ends_and_new_beginnings_in_turn(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Whoever comes back with whatever id: what was missed, and 204 only while it is over."""
    one, other = start(), start()
    wait_functions(publisher)
    heard: list[str] = []
    last_event_id = ""
    for number in range(8):
        worker = (one, other)[number % 2]
        durable(publisher, channel, [f"{number}a"])
        plain(publisher, channel, [f"{number}b"] if number else [])
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        with open_stream(worker.url, channel, headers=headers) as stream:
            durable(publisher, channel, [f"{number}c"])
            end(publisher, channel)
            heard += [event.data for event in stream.rest() if event.type == "message"]
            last_event_id = stream.last_event_id
        for each in (one, other):
            assert is_over(each, channel, last_event_id)
    durables = [text for text in heard if not text.endswith("b")]
    assert durables == [f"{number}{letter}" for number in range(8) for letter in "ac"][1:]
