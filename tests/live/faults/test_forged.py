"""Whoever may publish writes what looks like the gateway's own messages."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from testing.acl import documented
from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions

_TICKS = b"gateway.tick.0"
_HUGE = 10**15


class Tap:
    """Records what goes through a channel of Redis, as whoever may subscribe can."""

    def __init__(self, client: redis.Redis, channel: bytes) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(channel)

    def next(self) -> bytes:
        while True:
            message = self._pubsub.get_message(timeout=20)
            if message is not None:
                return bytes(message["data"])

    def close(self) -> None:
        self._pubsub.close()


@contextmanager
def tap(client: redis.Redis, channel: str | bytes) -> Iterator[Tap]:
    tapped = Tap(client, channel if isinstance(channel, bytes) else channel.encode())
    try:
        yield tapped
    finally:
        tapped.close()


@contextmanager
def _repeating(server: RedisServer, tick: bytes) -> Iterator[None]:
    """Publish a tick again and again."""
    over = threading.Event()

    def publish() -> None:
        with server.client() as client:
            while not over.is_set():
                client.publish(_TICKS, tick)
                over.wait(0.001)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _clock(client: redis.Redis) -> tuple[int, int]:
    fields = client.hmget("gateway.positions", "generation", "clock")
    generation, clock = (int(field or 0) for field in fields)
    return generation, clock


def _unmoved(worker: Worker, client: redis.Redis, channel: str, single: Client, mixed: Client) -> None:
    """Durable and plain events go on, on open streams and after a reconnect; nobody is told of a gap."""
    durable(client, channel, ["d1"])
    plain(client, channel, ["p1"])
    assert single.take(2) == mixed.take(2) == ["d1", "p1"]
    for each in (single, mixed):
        each.leave()
    durable(client, channel, ["d2"])
    plain(client, channel, ["p2"])
    assert single.missed(worker, 2) == mixed.missed(worker, 2) == ["d2", "p2"]


@pytest.mark.parametrize("ahead", [3_600_000, _HUGE], ids=["an hour", "huge"])
def test_a_forged_number_moves_no_clock(start: Start, publisher: redis.Redis, channel: str, ahead: int) -> None:
    """It silenced the durable messages of its channel, or of all of them."""
    workers = [start(), start()]
    wait_functions(publisher)
    other = channel + "other"
    for worker in workers:
        connects = metric(worker, "redis_connects_total")
        with Client(channel) as single, Client(channel, other) as mixed:
            single.open(worker)
            mixed.open(worker)
            generation, clock = _clock(publisher)
            for forged_generation in (generation, generation + ahead, generation - 1):
                forged = f"\x1egateway:{forged_generation}-{clock + ahead:010}"
                for signature in ("", " " + "0" * 20):
                    publisher.publish(channel, f"{forged}{signature}\nforged")
            # Everybody may publish, so it is a plain message like any other.
            assert single.take(6) == mixed.take(6) == ["forged"] * 6
            _unmoved(worker, publisher, channel, single, mixed)
        assert metric(worker, "redis_connects_total") == connects
        assert metric(worker, "unsigned_messages_total") >= 6


def test_a_signed_number_counts_once(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Whoever may subscribe can publish it again, in front of something else."""
    worker = start()
    wait_functions(publisher)
    other = channel + "other"
    with tap(publisher, channel) as tapped, Client(channel) as single, Client(channel, other) as mixed:
        single.open(worker)
        mixed.open(worker)
        connects = metric(worker, "redis_connects_total")
        durable(publisher, channel, ["first", "second"])
        assert single.take(2) == mixed.take(2) == ["first", "second"]
        head, _, _ = tapped.next().partition(b"\n")
        for where, text in ((channel, "again"), (other, "elsewhere")):
            publisher.publish(where, head + b"\n" + text.encode())
        assert single.take(1) == ["again"]
        assert mixed.take(2) == ["again", "elsewhere"]
        ids = [each.last_event_id for each in (single, mixed)]
        _unmoved(worker, publisher, channel, single, mixed)
        assert single.open(worker, ids[0]) == ["d1", "p1", "d2", "p2"]
        assert mixed.open(worker, ids[1]) == ["d1", "p1", "d2", "p2"]
        assert metric(worker, "redis_connects_total") == connects


def test_a_forged_tick_moves_no_clock(start: Start, private_redis: RedisServer, channel: str) -> None:
    with private_redis.client() as client, tap(client, _TICKS) as tapped:
        worker = start(private_redis.url, canary_interval=0)
        wait_functions(client)
        with Client(channel) as single, Client(channel, channel + "other") as mixed:
            single.open(worker)
            mixed.open(worker)
            connects = metric(worker, "redis_connects_total")
            ticks = metric(worker, "ticks_total")
            recorded = tapped.next()
            version, generation, number, identity, _, signature = recorded.split(b" ")
            forged = [
                b" ".join([version, generation, b"%d" % _HUGE, identity, b"", signature]),
                b" ".join([version, b"%d" % (int(generation) + 1), number, identity, b"", signature]),
                b" ".join([version, generation, b"%d" % _HUGE, b"0" * 16, b"", signature]),
                b" ".join([version, generation, b"%d" % _HUGE, identity, b""]),
                recorded.removesuffix(signature),
                b"",
                b"\xff" * 1000,
            ]
            refused = metric(worker, 'refused_messages_total{reason="unsigned"}')
            for each in forged:
                client.publish(_TICKS, each)
            for _ in range(10):
                client.publish(_TICKS, recorded)
            wait_until(lambda: metric(worker, 'refused_messages_total{reason="bad_control"}') >= 10, "all have come")
            assert metric(worker, 'refused_messages_total{reason="unsigned"}') == refused + len(forged)
            assert metric(worker, "ticks_total") == ticks
            _unmoved(worker, client, channel, single, mixed)
            assert metric(worker, "redis_connects_total") == connects


def test_old_ticks_do_not_open_what_a_worker_has_not_heard(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """A worker that connects must not take a tick for new that somebody has recorded: it would vouch for the past."""
    with private_redis.client() as client, tap(client, _TICKS) as tapped:
        first = start(private_redis.url)
        wait_functions(client)
        old = tapped.next()
        with Client(channel) as away:
            away.open(first)
            plain(client, channel, ["seen"])
            assert away.take(1) == ["seen"]
            away.leave()
            plain(client, channel, ["missed"])
            with _repeating(private_redis, old), Client(channel) as early:
                second = start(private_redis.url)
                early.open(second)
                assert away.open(second) == ["missed"], "the other worker knows it"


def test_a_publisher_that_may_nothing_else(start: Start, private_redis: RedisServer, channel: str) -> None:
    """Functions run with the rights of whoever calls them; the code with the secret need not be shown to him."""
    with private_redis.client() as client:
        worker = start(private_redis.url)
        wait_functions(client)
        client.execute_command("ACL", "SETUSER", "publisher", *documented("publisher")[0])
        url = private_redis.url.replace("redis://", "redis://publisher:password@")
        channel = f"news-{channel}"
        with redis.Redis.from_url(url) as limited, pytest.raises(redis.exceptions.NoPermissionError):
            limited.function_list()
        with redis.Redis.from_url(url) as limited, pytest.raises(redis.exceptions.NoPermissionError):
            limited.publish(_TICKS, "forged")
        with Client(channel) as listening:
            listening.open(worker)
            command = [sys.executable, "-m", "gateway", "publish", channel, "hello", "--durable", "--redis-url", url]
            subprocess.run(command, check=True, timeout=30, capture_output=True)
            assert listening.take(1) == ["hello"]
        assert metric(worker, "unsigned_messages_total") == 0
