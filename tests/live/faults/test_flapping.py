"""A connection to Redis that is lost again and again, while clients move between workers."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, subscribers, wait_functions

_LOSSES = 30


def test_durable_events_are_not_given_up_while_connections_are_lost(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """Whoever came back meanwhile was told of a gap at the fifth attempt, though Redis had everything."""
    own, shared = channel + "own", channel + "shared"
    workers = [start(private_redis.url, durable_channels=own) for _ in range(2)]
    with private_redis.client() as redis, ExitStack() as stack:
        wait_functions(redis)
        clients = [stack.enter_context(each) for each in [*(Client(own) for _ in range(8)), Client(own, shared)]]
        for place, client in enumerate(clients):
            client.open(workers[place % 2])
        pool = stack.enter_context(ThreadPoolExecutor(len(clients)))
        wandering = [
            pool.submit(client.wander, workers, random.Random(place), "end") for place, client in enumerate(clients)
        ]
        for number in range(_LOSSES):
            redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            durable(redis, own, [f"{number} a"])
            plain(redis, shared, [f"plain {number}"])
            wait_until(lambda: subscribers(redis, own) > 0, "a worker is back")
            durable(redis, own, [f"{number} b"])
        durable(redis, own, ["end"])
        for each in wandering:
            each.result()
        expected = [f"{number} {half}" for number in range(_LOSSES) for half in "ab"]
        for client in clients:
            assert [event for event in client.messages if not event.startswith("plain")] == [*expected, "end"]
        for client in clients[:-1]:
            assert client.gaps == []
        assert set(clients[-1].gaps) <= {f"gap {shared} redis_lost", f"gap {shared} not_kept"}
