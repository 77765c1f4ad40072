"""Fault 0: a stream that has had no event yet lost what was published while it was away."""

import redis

from testing.servers import RedisServer
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, finish, plain, subscribers, wait_functions, wait_subscribed


def test_every_stream_has_an_id_however_quiet(start: Start, channel: str) -> None:
    worker = start()
    with Client(channel, channel + "shared") as client:
        assert client.open(worker) == []
        opened = client.last_event_id
        assert opened.startswith("2.")
        finish(worker)
        assert client.rest() == []
        assert client.closing == "worker_shutdown"
        assert client.last_event_id.startswith("2.")


def test_a_quiet_channel_survives_a_deployment(start: Start, publisher: redis.Redis, channel: str) -> None:
    """The application's most ordinary stream: a busy shared channel, and the user's own on which nothing came yet."""
    shared, own, note = channel + "shared", channel + "own", channel + "note"
    old = start()
    with Client(shared, own, note) as mixed, Client(own) as quiet:
        mixed.open(old)
        quiet.open(old)
        wait_functions(publisher)
        plain(publisher, shared, ["shared 1", "shared 2"])
        assert mixed.take(2) == ["shared 1", "shared 2"]
        new = start()
        finish(old)
        mixed.rest()
        quiet.rest()
        assert subscribers(publisher, own) == 1, "the new worker has taken it over"
        plain(publisher, own, ["own 1"])
        plain(publisher, shared, ["shared 3"])
        durable(publisher, note, ["note 1"])
        plain(publisher, own, ["own 2"])
        assert sorted(mixed.missed(new, 4)) == ["note 1", "own 1", "own 2", "shared 3"]
        assert quiet.missed(new, 2) == ["own 1", "own 2"]
        plain(publisher, own, ["own 3"])
        assert mixed.take(1) == quiet.take(1) == ["own 3"]


def test_a_quiet_channel_survives_the_death_of_a_worker(start: Start, publisher: redis.Redis, channel: str) -> None:
    shared, own = channel + "shared", channel + "own"
    dying, other = start(), start()
    with Client(shared, own) as here, Client(own) as quiet, Client(own, shared) as there:
        # First, for what the other worker has heard begins with its subscription.
        there.open(other)
        here.open(dying)
        quiet.open(dying)
        wait_subscribed(publisher, own, 2)
        dying.kill()
        here.rest()
        quiet.rest()
        plain(publisher, own, ["own 1", "own 2"])
        plain(publisher, shared, ["shared 1"])
        assert sorted(here.missed(other, 3)) == ["own 1", "own 2", "shared 1"]
        assert quiet.missed(other, 2) == ["own 1", "own 2"]
        assert there.take(3) == ["own 1", "own 2", "shared 1"]


def test_a_quiet_channel_nobody_else_heard_gets_a_gap(start: Start, publisher: redis.Redis, channel: str) -> None:
    shared, own, note = channel + "shared", channel + "own", channel + "note"
    dying, other = start(), start()
    with Client(shared, own, note) as client, Client(shared) as holder:
        holder.open(other)
        client.open(dying)
        wait_functions(publisher)
        dying.kill()
        client.rest()
        plain(publisher, own, ["lost"])
        durable(publisher, note, ["note 1"])
        plain(publisher, shared, ["shared 1"])
        missed = client.open(other)
        assert sorted(missed) == [f"gap {note} not_kept", f"gap {own} not_kept", "note 1", "shared 1"]


def test_everything_restarted_is_a_gap_for_plain_channels_only(
    start: Start, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    own, note = channel + "own", channel + "note"
    workers = [start(durable_channels=note) for _ in range(2)]
    with Client(own, note) as client, Client(own) as quiet, Client(note) as safe:
        for each in (client, quiet, safe):
            each.open(workers[0])
        wait_functions(publisher)
        for worker in workers:
            worker.kill()
        for each in (client, quiet, safe):
            each.rest()
        plain(publisher, own, ["lost"])
        durable(publisher, note, ["note 1", "note 2"])
        new = start(durable_channels=note)
        assert sorted(client.open(new)) == [f"gap {own} not_kept", "note 1", "note 2"]
        assert quiet.open(new) == [f"gap {own} not_kept"]
        assert safe.open(new) == ["note 1", "note 2"]
