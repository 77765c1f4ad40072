"""Clients and messages of the previous version of the gateway, whose ids said when, but not where."""

import json

import pytest
import redis

from testing.servers import RedisServer
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions

_PLAIN_ID = "1790000000123-9f3a61c2"
_DURABLE_ID = "1790000000123-0"


def _store(client: redis.Redis, channel: str, milliseconds: int, number: int, text: str) -> None:
    """A durable message as the previous version stores and publishes it."""
    id_ = f"{milliseconds}-{number}"
    client.xadd(f"gateway.stream:{channel}", {"d": text}, id=id_)
    client.hset("gateway.clock", mapping={"last": id_})
    client.hsetnx("gateway.clock", "birth", "1790000000000-0")
    client.publish(channel, f"\x1egateway:{milliseconds}-{number:010}\n{text}")


@pytest.mark.parametrize("last", [_PLAIN_ID, _DURABLE_ID], ids=["plain", "durable"])
def test_an_id_of_the_previous_version(start: Start, private_redis: RedisServer, channel: str, last: str) -> None:
    """A gap, and behind it what is kept."""
    own, shared = channel + "own", channel + "shared"
    with private_redis.client() as client:
        _store(client, own, 1790000000100, 0, "seen")
        _store(client, own, 1790000000200, 0, "old 1")
        _store(client, own, 1790000000200, 1, "old 2")
        worker = start(private_redis.url)
        wait_functions(client)
        durable(client, own, ["new 1"])
        kept = ["old 1", "old 2", "new 1"]
        with Client(own, shared) as mixed, Client(own) as single, Client(patterns=[own + "*"]) as wild:
            gaps = [f"gap {own} unknown_id", f"gap {shared} unknown_id"]
            assert mixed.open(worker, last) == [*gaps, *kept]
            assert single.open(worker, last) == [gaps[0], *kept]
            assert wild.open(worker, last) == [f"gap {own}* unknown_id", *kept]
            # From here on they have ids of this version.
            durable(client, own, ["new 2"])
            plain(client, shared, ["plain"])
            assert mixed.take(2) == ["new 2", "plain"]
            assert single.take(1) == wild.take(1) == ["new 2"]
            for each in (mixed, single, wild):
                assert each.last_event_id.startswith("2.")
                assert each.open(worker) == []
            # Each of the ids within the replay leads on, too; those of old events only behind a gap.
            for at, id_ in enumerate(list(single.ids[1:4])):
                missed = single.open(worker, id_)
                assert [event for event in missed if not event.startswith("gap")] == [*kept, "new 2"][at + 1 :]


def test_messages_of_an_old_worker_beside_this_one(start: Start, private_redis: RedisServer, channel: str) -> None:
    """During a rolling update both publish; nothing comes twice, and nothing is lost without a gap."""
    own, shared = channel + "own", channel + "shared"
    with private_redis.client() as client:
        _store(client, own, 1790000000100, 0, "old 1")
        worker = start(private_redis.url)
        wait_functions(client)
        with Client(own, shared) as live, Client(own, shared) as away:
            live.open(worker)
            away.open(worker)
            durable(client, own, ["new 1"])
            assert live.take(1) == away.take(1) == ["new 1"]
            away.leave()
            for number in range(2, 5):
                _publish_beside(client, own, f"old {number}")
                durable(client, own, [f"new {number}"])
                plain(client, shared, [f"plain {number}"])
            expected = [f"{kind} {number}" for number in range(2, 5) for kind in ("old", "new", "plain")]
            assert live.take(9) == expected
            durables = [text for text in expected if not text.startswith("plain")]
            missed = away.open(worker)
            assert [text for text in missed if text in durables] == durables
            assert [text for text in missed if text not in durables] == ["plain 2", "plain 3", "plain 4"]
            worker.kill()
            other = start(private_redis.url)
            missed = away.open(other, away.ids[0])
            assert [text for text in missed if not text.startswith("gap")] == durables
            assert sorted(away.gaps) == [f"gap {own} not_kept", f"gap {shared} not_kept"]


def test_a_pattern_hears_of_channels_only_an_old_worker_knows(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """Nothing in this version's notes says that there is anything on them."""
    pattern = channel + "*"
    with private_redis.client() as client, Client(patterns=[pattern]) as wild:
        worker = start(private_redis.url, durable_channels=pattern)
        wait_functions(client)
        wild.open(worker)
        worker.kill()
        wild.leave()
        _publish_beside(client, channel + "old", "old")
        durable(client, channel + "new", ["new"])
        worker = start(private_redis.url, durable_channels=pattern)
        assert wild.open(worker) == [f"gap {pattern} trimmed", "old", "new"]


def _publish_beside(client: redis.Redis, channel: str, text: str) -> None:
    """As the previous version's function does it: the next number after the newest."""
    generation, _, number = client.hget("gateway.clock", "last").decode().partition("-")  # type: ignore[union-attr]
    _store(client, channel, int(generation), int(number) + 1, text)


def test_any_other_text_is_an_unknown_id(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Whatever a client makes up: a gap, and live events; never an error, which would end an EventSource for good."""
    worker = start()
    with Client(channel, channel + "2") as client:
        for text in (
            "17",
            "2.",
            "2.1.1.x:1",
            "3.1.1",
            "2.0.0",
            "2.ffff.1",
            json.dumps({"a": 1}),
            "~",
            "-",
        ):
            client.open(worker, text)
            assert client.gaps, text
            client.events.clear()
            plain(publisher, channel, ["live"])
            assert client.take(1) == ["live"]
