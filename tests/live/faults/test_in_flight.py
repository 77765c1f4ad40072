"""Faults 11 and 12: messages that come while a worker is still finding out what came before them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import redis

from testing.http import metric
from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions


@contextmanager
def _publishing(server: RedisServer, own: str, shared: str) -> Iterator[list[str]]:
    """Durable messages on one channel and plain ones on the other, one after the other; yields the former."""
    sent: list[str] = []
    over = threading.Event()

    def publish() -> None:
        with server.client() as client:
            for number in count():
                if over.is_set():
                    return
                durable(client, own, [f"own {number}"])
                sent.append(f"own {number}")
                plain(client, shared, [f"shared {number}"])

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("interval", [0, 1], ids=["no canary", "canary"])
def test_durable_events_in_flight_come_once(
    start: Start, redis_server: RedisServer, publisher: redis.Redis, channel: str, interval: float
) -> None:
    """Fault 11: they were delivered twice if the worker couldn't tell when it had heard everything."""
    own, shared = channel + "own", channel + "shared"
    # Nothing in memory, and nobody to ask: Redis is read for each client.
    worker = start(history_events=0, linger=0, canary_interval=interval, durable_channels=own)
    wait_functions(publisher)
    clients = [Client(own, shared) if number % 2 else Client(own) for number in range(4)]
    for client in clients:
        client.open(worker)
    with _publishing(redis_server, own, shared) as sent:
        for _ in range(15):
            for client in clients:
                client.leave()
                client.open(worker)
                client.take(2)
    plain(publisher, own, ["rejected"])
    durable(publisher, own, ["end"])
    for client in clients:
        client.until("end")
        client.leave()
        assert [event for event in client.messages if event.startswith(("own", "end"))] == [*sent, "end"]
        assert all(gap == f"gap {shared} not_kept" for gap in client.gaps)


def test_durable_events_come_once_without_the_ticks_of_redis(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """Fault 11: as above, where the gateway's user may not publish on the channel of the ticks (ACL)."""
    own = channel + "own"
    with private_redis.client() as client:
        start(private_redis.url)
        wait_functions(client)
        may = [f"{channel}*", "gateway.peers.*", "gateway.worker.*"]
        worker = start(private_redis.limited_url(channels=may), history_events=0, linger=0)
        with Client(own) as stream, _publishing(private_redis, own, channel + "shared"):
            stream.open(worker)
            for _ in range(10):
                stream.take(2)
                stream.open(worker)
            assert stream.last_event_id == "2.0.0"
            assert set(stream.gaps) == {f"gap {own} uncounted"}
            assert len(set(stream.messages)) == len(stream.messages)


def test_a_flood_while_a_worker_subscribes_again(
    start: Start, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    """Fault 12: with more than 20,000 messages it stayed unready and refused new channels for good."""
    busy, quiet = channel + "busy", channel + "quiet"
    worker, other = start(), start()
    with Client(quiet) as client, Client(busy) as flooded, Client(quiet) as holder:
        for each in (client, flooded):
            each.open(worker)
        holder.open(other)
        address = _subscriber(publisher, busy)
        heard = metric(worker, "messages_total")
        over = threading.Event()

        def flood() -> None:
            with redis_server.client() as another:
                while not over.is_set():
                    with another.pipeline(transaction=False) as pipeline:
                        for _ in range(500):
                            pipeline.publish(busy, "x")
                        pipeline.execute()

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for number in range(5):
                connects = metric(worker, "redis_connects_total")
                publisher.client_kill_filter(addr=address)
                wait_until(lambda: metric(worker, "redis_connects_total") > connects, "it connects again")  # noqa: B023
                worker.wait_ready()
                connects = metric(worker, "redis_connects_total")
                with Client(f"{channel}-{number}") as new:
                    new.open(worker)
                    plain(publisher, f"{channel}-{number}", ["live"])
                    # Redis ends the connection again if a slow machine can't keep up with the flood.
                    came = new.take(1)
                    assert came == ["live"] or metric(worker, "redis_connects_total") > connects, came
                address = _subscriber(publisher, busy)
            wait_until(lambda: metric(worker, "messages_total") > heard + 20_000, "it was a flood")
        finally:
            over.set()
            thread.join()
        plain(publisher, quiet, ["end"])
        assert worker.ready()
        assert client.take(1) == holder.take(1) == ["end"], "the other worker had heard everything"
        plain(publisher, busy, ["end"])
        flooded.open(worker)
        plain(publisher, busy, ["over"])
        flooded.until("over")


def _subscriber(client: redis.Redis, channel: str) -> str:
    """Address of the connection on which a worker listens to one more channel than any other worker."""
    del channel
    listening = [each for each in client.client_list(_type="pubsub") if int(each["sub"]) > 0]
    return str(max(listening, key=lambda each: int(each["sub"]))["addr"])
