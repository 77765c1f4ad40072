"""Publishing to a real Redis, and asking it what the gateway does there."""

from collections.abc import Iterable

import redis

from testing.servers import Worker
from testing.waiting import wait_until


def plain(client: redis.Redis, channel: str, texts: Iterable[str]) -> None:
    for text in texts:
        client.publish(channel, text)


def durable(client: redis.Redis, channel: str, texts: Iterable[str]) -> None:
    """As a publisher does that has nothing but a Redis client."""
    for text in texts:
        client.fcall("gateway_publish", 1, channel, text)


def subscribers(client: redis.Redis, channel: str) -> int:
    """How many connections listen to a channel."""
    return int(client.pubsub_numsub(channel)[0][1])


def wait_subscribed(client: redis.Redis, channel: str, count: int) -> None:
    wait_until(lambda: subscribers(client, channel) == count, f"{count} workers listen to {channel}")


def wait_functions(client: redis.Redis) -> None:
    """Until `FCALL gateway_publish` works, which workers see to in the background."""
    wait_until(lambda: client.function_list("gateway_*"), "the functions are loaded")


def finish(worker: Worker) -> None:
    """Shut a worker down as a deployment does."""
    assert worker.stop() == 0, worker.output
