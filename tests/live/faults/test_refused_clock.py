"""Redis delivers, but refuses to count: out of memory, or too few replicas."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from testing.http import metric
from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions

Refusing = Callable[[], AbstractContextManager[None]]

_NOWHERE = "2.0.0"

_REFUSALS = {
    "out of memory": ("maxmemory", "1", "0"),
    "too few replicas": ("min-replicas-to-write", "1", "0"),
}


@pytest.fixture(params=_REFUSALS)
def refusing(request: pytest.FixtureRequest, private_redis: RedisServer) -> Refusing:
    """Makes Redis refuse to count, as a context manager."""
    name, on, off = _REFUSALS[request.param]

    @contextmanager
    def refuse() -> Iterator[None]:
        with private_redis.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set(name, on)
            try:
                yield
            finally:
                client.config_set(name, off)

    return refuse


def test_streams_go_on_and_get_positions_again(
    start: Start, private_redis: RedisServer, refusing: Refusing, channel: str
) -> None:
    own, shared, late = channel + "own", channel + "shared", channel + "late"
    worker, other = start(private_redis.url), start(private_redis.url)
    with private_redis.client() as client, Client(own, shared) as mixed, Client(own, shared) as away:
        wait_functions(client)
        mixed.open(worker)
        away.open(worker)
        durable(client, own, ["1"])
        plain(client, shared, ["2"])
        assert mixed.take(2) == away.take(2) == ["1", "2"]
        away.leave()
        opened = Client(shared, late)
        with refusing():
            plain(client, shared, ["3"])
            plain(client, own, ["4"])
            assert mixed.take(2) == ["3", "4"], "what is open stays open"
            # It joins a topic that has a position, and one that gets none.
            assert opened.open(worker) == []
            assert opened.last_event_id == _NOWHERE
            plain(client, late, ["5"])
            plain(client, shared, ["6"])
            assert opened.take(2) == ["5", "6"]
            assert opened.ids == [_NOWHERE, _NOWHERE]
            assert mixed.take(1) == ["6"]
            assert worker.ready()
            # What this worker has heard is still compared.
            assert sorted(away.open(worker)) == ["3", "4", "6"]
            # On a worker that had not heard them, nothing can be.
            assert away.open(other) == [f"gap {own} uncounted", f"gap {shared} uncounted"]
            assert away.last_event_id == _NOWHERE
            assert away.open(worker) == [f"gap {own} uncounted", f"gap {shared} uncounted"]
            assert Client(late).open(other) == []
        ticks = metric(worker, "ticks_total"), metric(other, "ticks_total")
        for each, before in zip((worker, other), ticks, strict=True):
            wait_until(lambda each=each, before=before: metric(each, "ticks_total") > before, "it counts")  # type: ignore[misc]
        plain(client, late, ["7"])
        plain(client, shared, ["8"])
        assert opened.take(2) == ["7", "8"]
        assert mixed.take(1) == ["8"]
        assert _NOWHERE not in (*opened.ids[-2:], mixed.last_event_id)
        assert opened.gaps == mixed.gaps == []
        opened.leave()
        plain(client, late, ["9"])
        assert opened.missed(worker, 1) == ["9"]
        assert opened.open(worker, _NOWHERE) == [f"gap {shared} uncounted", f"gap {late} uncounted"]
        assert opened.last_event_id != _NOWHERE
        opened.leave()


def test_a_worker_that_starts_meanwhile_is_ready(
    start: Start, private_redis: RedisServer, refusing: Refusing, channel: str
) -> None:
    """Else none would get any clients until Redis has memory again."""
    with refusing(), private_redis.client() as client:
        worker = start(private_redis.url)
        with Client(channel) as stream:
            assert stream.open(worker) == []
            assert stream.last_event_id == _NOWHERE
            plain(client, channel, ["1"])
            assert stream.take(1) == ["1"]
            # The connection is watched although no ticks come.
            connects = metric(worker, "redis_connects_total")
            client.client_kill_filter(_type="pubsub")
            wait_until(lambda: metric(worker, "redis_connects_total") > connects, "it connects again")
            assert stream.take(1) == [f"gap {channel} uncounted"]
            plain(client, channel, ["2"])
            assert stream.take(1) == ["2"]
