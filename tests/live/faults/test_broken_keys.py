"""Somebody has put a key of his own where the gateway keeps its events."""

import pytest
import redis

from testing.servers import RedisServer
from testing.stream import open_stream
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


def test_an_entry_of_somebody_elses_costs_none_of_ours(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """Whoever asked for that history got a 500."""
    with private_redis.client() as client:
        worker = start(private_redis.url, history_events=0, linger=0)
        wait_functions(client)
        durable(client, channel, ["1", "2"])
        client.xadd(f"gateway.stream:{channel}", {"d": "theirs", "t": "no number", "p": "no position"})
        client.xadd(f"gateway.stream:{channel}", {"x": "y"})
        url = f"{worker.url}/events?channel={channel}"
        with open_stream(f"{url}&history=5") as stream:
            assert [event.data for event in stream.take(2)] == ["1", "2"]
        with open_stream(url, headers={"Last-Event-ID": stream.ids[0]}) as stream:
            assert stream.take(2)[-1].data == "2", "behind a gap, because nobody knows what was in between"


def test_a_clock_of_somebody_elses_ends_with_it(start: Start, private_redis: RedisServer, channel: str) -> None:
    """What Redis answered then was an error that nobody expected."""
    with private_redis.client() as client:
        worker = start(private_redis.url)
        wait_functions(client)
        refused = worker.output.count("refuses to count")
        client.hset("gateway.positions", "generation", "no number")
        wait_until(lambda: worker.output.count("refuses to count") > refused, "it is taken for a refusal")
        client.delete("gateway.positions")
        with Client(channel) as listening:
            listening.open(worker)
            plain(client, channel, ["heard"])
            assert listening.until("heard")[-1] == "heard"
        assert "Traceback" not in worker.output
