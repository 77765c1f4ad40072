"""Faults 7 and 8: existence was taken for completeness, and a durable past for a purely durable channel."""

import httpx
import pytest
import redis

from testing.http import metric
from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions, wait_subscribed


@pytest.mark.parametrize("before", [0, 5], ids=["quiet before", "not quiet before"])
@pytest.mark.parametrize("after", [0, 20], ids=["quiet after", "not quiet after"])
def test_a_stream_key_that_went_away_unseen(
    start: Start, publisher: redis.Redis, channel: str, before: int, after: int
) -> None:
    """Fault 7: evicted or deleted while nobody looked, then published to; 20 of 20 were lost silently."""
    own, shared = channel + "own", channel + "shared"
    worker = start(durable_channels=channel + "own*")
    wait_functions(publisher)
    with Client(own, shared) as client, Client(patterns=[own + "*"]) as wild:
        for each in (client, wild):
            each.open(worker)
        durable(publisher, own, [f"seen {number}" for number in range(before)])
        for each in (client, wild):
            each.take(before)
            each.leave()
        worker.kill()
        durable(publisher, own, ["lost"])
        publisher.delete(f"gateway.stream:{own}")
        new = [f"new {number}" for number in range(after)]
        durable(publisher, own, new)
        other = start(durable_channels=channel + "own*")
        assert sorted(client.open(other)) == sorted([f"gap {own} trimmed", f"gap {shared} not_kept", *new])
        assert wild.open(other) == [f"gap {own}* trimmed", *new]
        durable(publisher, own, ["live"])
        assert client.take(1) == wild.take(1) == ["live"]
        assert client.open(other) == wild.open(other) == []


def test_what_is_there_is_no_gap(start: Start, publisher: redis.Redis, channel: str) -> None:
    """The counterpart: nothing is missing, so nothing is said to be."""
    own = channel + "own"
    worker = start(durable_channels=own)
    wait_functions(publisher)
    with Client(own) as client:
        client.open(worker)
        worker.kill()
        client.rest()
        worker = start(durable_channels=own)
        assert client.open(worker) == [], "nothing has ever been published there"
        worker.kill()
        durable(publisher, own, ["1", "2"])
        worker = start(durable_channels=own)
        assert client.open(worker) == ["1", "2"]


@pytest.mark.parametrize("durable_only", [True, False])
def test_plain_messages_on_a_durable_channel(
    start: Start, publisher: redis.Redis, channel: str, durable_only: bool
) -> None:
    """Fault 8: the first plain message comes while no worker listens; 5 of 5 were lost silently."""
    settings = {"durable_channels": channel} if durable_only else {}
    worker = start(**settings)
    wait_functions(publisher)
    with Client(channel) as client:
        client.open(worker)
        durable(publisher, channel, ["durable 1"])
        assert client.take(1) == ["durable 1"]
        worker.kill()
        client.rest()
        plain(publisher, channel, ["plain 1"])
        durable(publisher, channel, ["durable 2"])
        plain(publisher, channel, ["plain 2"])
        worker = start(**settings)
        gap = [] if durable_only else [f"gap {channel} not_kept"]
        assert client.open(worker) == [*gap, "durable 2"]
        plain(publisher, channel, ["plain 3"])
        durable(publisher, channel, ["durable 3"])
        assert client.until("durable 3") == (["durable 3"] if durable_only else ["plain 3", "durable 3"])
        rejected = metric(worker, "refused_messages_total", reason="not_durable")
        assert rejected == (1 if durable_only else 0)
        # What was rejected was counted, or this would bring something twice, or a gap.
        assert client.open(worker) == []


def test_flushall(start: Start, private_redis: RedisServer, channel: str) -> None:
    """Fault 8: whoever is there, and whoever comes back to a worker that is cold."""
    own, shared = channel + "own", channel + "shared"
    settings = {"durable_channels": own}
    with private_redis.client() as client:
        worker = start(private_redis.url, **settings)
        wait_functions(client)
        with Client(own, shared) as there, Client(own, shared) as away, Client(own) as quiet:
            for each in (there, away, quiet):
                each.open(worker)
            durable(client, own, ["1", "2"])
            plain(client, shared, ["3"])
            for each in (there, away):
                each.until("3")
            away.leave()
            quiet.leave()
            client.flushall()
            # Functions are no data, so publishers just go on. This message tells the worker what has happened.
            durable(client, own, ["4"])
            gaps = [f"gap {own} history_lost", f"gap {shared} history_lost"]
            # Even the history of the histories is gone, so that everybody starts from now.
            assert there.take(2) == gaps
            worker.wait_ready()
            assert away.open(worker) == gaps
            durable(client, own, ["5"])
            plain(client, shared, ["6"])
            assert there.take(2) == away.take(2) == ["5", "6"]
            worker.kill()
            durable(client, own, ["7"])
            cold = start(private_redis.url, **settings)
            assert quiet.open(cold) == [f"gap {own} history_lost"]
            assert sorted(away.open(cold)) == sorted(["7", f"gap {shared} not_kept"])
            for each in (there, away, quiet):
                assert len(set(each.messages)) == len(each.messages)


def test_a_mark_that_is_kept_too_long_or_not_at_all(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 8: what is kept of a channel expires; the plain messages on it were believed to be durable."""
    worker, other = start(durable_age=1), start(durable_age=1)
    with Client(channel) as client, Client(channel + "other") as holder:
        client.open(worker)
        holder.open(other)
        # The functions of the workers before these keep for longer, so these ask over HTTP.
        wait_subscribed(publisher, channel, 1)
        httpx.post(f"{worker.url}/publish/{channel}?durable=1", content="1").raise_for_status()
        assert client.take(1) == ["1"]
        worker.kill()
        client.rest()
        wait_until(lambda: not publisher.exists(f"gateway.stream:{channel}"), "it expires")
        plain(publisher, channel, ["lost"])
        assert client.open(other) == [f"gap {channel} not_kept"]
