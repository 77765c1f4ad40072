"""Somebody has put a key of his own where the gateway keeps its events."""

import pytest
import redis

from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, subscribers, wait_functions


def test_one_key_of_the_wrong_type_costs_no_other_channel(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """Recovery failed for all channels that were read with it."""
    broken, other = channel + "broken", channel + "other"
    with private_redis.client() as client:
        worker = start(private_redis.url, history_events=0, linger=0)
        wait_functions(client)
        with Client(broken, other) as mixed, Client(other, broken) as swapped, Client(other) as single:
            for each in (mixed, swapped, single):
                each.open(worker)
            durable(client, broken, ["1"])
            durable(client, other, ["2"])
            for each in (mixed, swapped):
                assert each.take(2) == ["1", "2"]
            assert single.take(1) == ["2"]
            for each in (mixed, swapped, single):
                each.leave()
            wait_until(lambda: subscribers(client, other) == 0, "nobody listens")
            durable(client, other, ["3", "4"])
            client.delete(f"gateway.stream:{broken}")
            client.set(f"gateway.stream:{broken}", "somebody else's")
            with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                durable(client, broken, ["5"])
            plain(client, broken, ["unheard"])
            for each in (mixed, swapped):
                missed = each.open(worker)
                assert [event for event in missed if not event.startswith("gap")] == ["3", "4"]
                assert f"gap {broken} not_kept" in missed
            assert single.open(worker)[-2:] == ["3", "4"]
            with Client(patterns=[channel + "*"]) as wild:
                wild.open(worker)
                plain(client, broken, ["live"])
                assert mixed.until("live")[-1] == wild.take(1)[0] == "live"
