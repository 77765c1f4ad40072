"""Another gateway on the same Redis server, with another database: Pub/Sub and the functions are shared."""

from pathlib import Path

import pytest
import redis

from testing.http import metric
from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions
from tests.live.faults.test_forged import tap


@pytest.mark.parametrize("secret", ["", "one-secret-for-both-of-them"], ids=["generated", "given"])
def test_another_database_costs_nothing(start: Start, private_redis: RedisServer, channel: str, secret: str) -> None:
    """A recorded tick of its had every worker reconnect, each time; a durable message of its, once."""
    own, other = channel + "own", channel + "other"
    url = f"{private_redis.url.removesuffix('/0')}/1"
    with private_redis.client() as client, redis.Redis.from_url(url) as foreign:
        worker = start(private_redis.url, secret=secret, durable_channels=own)
        wait_functions(client)
        # It begins later, so its generation is newer: an older one was known for old.
        with tap(client, b"gateway.tick.1") as tapped:
            neighbour = start(url, secret=secret)
            ticks = [tapped.next(), tapped.next()]
        with Client(own) as kept, Client(other) as mixed, Client(other) as beside:
            kept.open(worker)
            mixed.open(worker)
            beside.open(neighbour)
            for number in range(5):
                for tick in ticks:
                    client.publish("gateway.tick.0", tick)
                durable(foreign, own, [f"foreign {number}"])
                durable(foreign, other, [f"foreign {number}"])
                durable(client, own, [f"own {number}"])
                plain(client, other, [f"plain {number}"])
            assert kept.take(5) == [f"own {number}" for number in range(5)]
            # Pub/Sub is one for all databases: what another one says is a plain message here.
            both = [f"{kind} {number}" for number in range(5) for kind in ("foreign", "plain")]
            assert mixed.take(10) == beside.take(10) == both
            assert mixed.open(worker) == beside.open(neighbour) == kept.open(worker) == []
        wait_until(lambda: metric(worker, 'refused_messages_total{reason="unsigned"}') == 10, "ten ticks")
        assert metric(worker, "unsigned_messages_total") == 10
        for each in (worker, neighbour):
            assert metric(each, "redis_connects_total") == 1


def test_another_server_with_the_same_secret_costs_one_connection(
    start: Start, private_redis: RedisServer, tmp_path: Path, channel: str
) -> None:
    """An operator's mistake (each Redis is to have a secret of its own), which must not cost a connection a tick."""
    secret = "one-secret-for-two-servers"
    directory = tmp_path / "another"
    directory.mkdir()
    # Begun later: the ticks of a generation from before this one's are known to be old.
    with private_redis.client() as client, RedisServer(directory) as another, another.client() as elsewhere:
        worker = start(private_redis.url, secret=secret)
        with tap(elsewhere, b"gateway.tick.0") as tapped:
            start(another.url, secret=secret)
            ticks = [tapped.next() for _ in range(3)]
        client.publish("gateway.tick.0", ticks[-1])
        wait_until(lambda: metric(worker, "redis_connects_total") == 2, "it might have been the new master")
        worker.wait_ready()
        with Client(channel) as listening:
            listening.open(worker)
            refused = metric(worker, 'refused_messages_total{reason="bad_control"}')
            for number in range(10):
                client.publish("gateway.tick.0", ticks[number % 3])
                durable(client, channel, [f"{number}"])
            assert listening.take(10) == [f"{number}" for number in range(10)]
            assert metric(worker, 'refused_messages_total{reason="bad_control"}') == refused + 10
        assert metric(worker, "redis_connects_total") == 2
