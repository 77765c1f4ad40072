"""Clients of everything, a worker that stands still, and another database: none of them may cost anything."""

import signal

import redis

from testing.servers import RedisServer
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, finish, plain, wait_functions


def test_clients_of_everything_are_no_workers(start: Start, private_redis: RedisServer, channel: str) -> None:
    """PUBLISH counts a client's pattern that matches the workers' own channels as a receiver."""
    old, new = start(private_redis.url), start(private_redis.url)
    with private_redis.client() as client, Client(patterns=["*"]) as everything, Client(channel) as one:
        wait_functions(client)
        everything.open(new)
        one.open(old)
        plain(client, channel, ["1"])
        assert one.take(1) == ["1"]
        one.leave()
        plain(client, channel, ["2", "3"])
        assert one.open(new) == ["2", "3"]
        assert one.gaps == []
        one.leave()
        plain(client, channel, ["4"])
        finish(old)
        assert "not everything was handed over" not in old.output
        assert "answered within" not in old.output + new.output, "everybody who was asked has answered at once"
        assert one.missed(new, 1) == ["4"]
        assert one.gaps == []


def test_a_worker_that_stands_still_is_not_waited_for_if_another_knows_everything(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    knows, hangs, new = (start(private_redis.url) for _ in range(3))
    with private_redis.client() as client, Client(channel) as one:
        one.open(knows)
        plain(client, channel, ["1"])
        one.take(1)
        one.leave()
        plain(client, channel, ["2"])
        hangs.send_signal(signal.SIGSTOP)
        try:
            assert one.open(new) == ["2"]
        finally:
            hangs.send_signal(signal.SIGCONT)
        assert one.gaps == []
        assert "answered within" not in new.output


def test_durable_messages_of_a_database_without_a_gateway_are_plain_here(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """Databases share Pub/Sub, and each has a clock of its own; without a tick nothing says which database it is."""
    here = start(private_redis.url)
    with (
        private_redis.client() as client,
        redis.Redis(port=private_redis.port, db=1) as other,
        Client(channel) as one,
    ):
        wait_functions(client)
        one.open(here)
        durable(other, channel, ["the first one"])  # costs the worker its connection: it could be a new master's
        assert one.take(1) == [f"gap {channel} redis_lost"]
        durable(other, channel, ["theirs"])
        plain(client, channel, ["ours"])
        durable(client, channel, ["ours, kept"])
        assert one.take(3) == ["theirs", "ours", "ours, kept"]
        assert len(one.gaps) == 1
