"""Channels that a client adds: `new=` says which, and an EventSource repeats it with every reconnection."""

import redis

from testing.stream import open_stream
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions


def test_a_new_channel_is_new_once(start: Start, publisher: redis.Redis, channel: str) -> None:
    old, added = channel + "old", channel + "added"
    one, other = start(), start()
    wait_functions(publisher)
    with open_stream(one.url, [old, added]) as both:  # so that the workers know what was published before
        plain(publisher, added, ["before"])
        both.next()
        with open_stream(one.url, old) as stream:
            plain(publisher, old, ["1"])
            assert stream.next().data == "1"
            last = stream.last_event_id
    same_url = [("new", added)]
    with open_stream(one.url, [old, added], params=same_url, headers={"Last-Event-ID": last}) as stream:
        plain(publisher, old, ["2"])
        assert stream.next().data == "2", "nothing from before, and no gap"
        last = stream.last_event_id
    durable(publisher, added, ["kept"])
    plain(publisher, added, ["3"])
    with open_stream(other.url, [old, added], params=same_url, headers={"Last-Event-ID": last}) as stream:
        assert [event.data for event in stream.take(2)] == ["kept", "3"]
