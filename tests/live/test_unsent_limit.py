"""What waits for clients that don't read is limited together, whatever it is."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.slow import Slow
from testing.stream import open_stream
from testing.waiting import wait_until

_SIZE = 200_000
_ROOMY: dict[str, Any] = {
    "queue_bytes": 100_000_000,
    "queue_events": 100_000,
    "history_bytes": 100_000_000,
    "history_events": 100_000,
    "replay_bytes": 100_000_000,
}
"""So that no other limit is reached."""


def _publish(server: RedisServer, channels: Sequence[str], number: int, size: int = _SIZE) -> None:
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for channel in channels:
            pipeline.publish(channel, f"<{number}>".ljust(size, "x"))
        pipeline.execute()


def _numbers(data: bytes) -> list[int]:
    """Of the events that came whole."""
    return [int(number) for number in re.findall(rb"data: <(\d+)>x*\r?\n\r?\n", data)]


def _last_id(data: bytes) -> str:
    """Of the events that came whole."""
    ids: list[bytes] = re.findall(rb"id: (\S+)\r?\n(?:[a-z]+: .*\r?\n)+\r?\n", data)
    return ids[-1].decode()


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_those_furthest_behind_are_ended_first_and_lose_nothing(
    tmp_path: Path, redis_server: RedisServer, delivery: str, channel: str
) -> None:
    limit = 8_000_000
    settings = {**_ROOMY, "unsent_total_bytes": limit, "replay_total_bytes": limit, "delivery": delivery}
    names = [f"{channel}.{place}" for place in range(4)]
    with Worker(tmp_path, redis_server.url, **settings) as worker, ExitStack() as stack:
        slow = [stack.enter_context(Slow(worker, f"channel={name}")) for name in names]
        healthy = [stack.enter_context(open_stream(worker.url, name)) for name in names]
        wait_until(lambda: metric(worker, "streams") == 8, "all open")
        number = 0
        while not metric(worker, "streams_closed_total", reason="unsent_total"):
            # The last gets four times as much as the first.
            for place, name in enumerate(names):
                if number % 12 % (4 - place) == 0:
                    _publish(redis_server, [name], number)
                    assert healthy[place].next().data.startswith(f"<{number}>")
            assert metric(worker, "unsent_bytes") <= limit + _SIZE
            number += 1
            assert number < 2000
        assert metric(worker, "streams_closed_total", reason="unsent_total") == 1
        ended = re.findall(r"stream dropped: unsent_total, .* channels (\S+)", worker.output)
        assert ended == [names[3]]
        assert metric(worker, "unsent_bytes") <= 0.9 * limit
        _publish(redis_server, names, number, 20)
        for place in range(3):
            got = _numbers(slow[place].read_until(b"<%d>xxxxx" % number))
            sent = [each for each in range(number) if each % 12 % (4 - place) == 0]
            assert got[: len(sent)] == sent
        before = slow[3].read_to_the_end()
        resumed = stack.enter_context(Slow(worker, f"channel={names[3]}", f"Last-Event-ID: {_last_id(before)}"))
        after = resumed.read_until(b"<%d>xxxxx" % number)
        assert _numbers(before + after)[:number] == list(range(number))
        wait_until(lambda: metric(worker, "unsent_bytes") == 0, "nothing waits")
        assert "ERROR" not in worker.output


def test_what_many_wait_for_counts_once(tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    names = [f"{channel}.{place}" for place in range(3)]
    queries = [f"channel={names[0]}"] * 10 + [f"channel={names[0]}&channel={names[1]}"] * 10
    settings = {**_ROOMY, "unsent_total_bytes": 20_000_000, "replay_total_bytes": 65_536, "gzip": False}
    with Worker(tmp_path, redis_server.url, **settings) as worker, ExitStack() as stack:
        slow = [stack.enter_context(Slow(worker, query)) for query in queries]
        healthy = stack.enter_context(open_stream(worker.url, names[0]))
        wait_until(lambda: metric(worker, "streams") == 21, "all open")
        number = 0
        while metric(worker, "queued_bytes") < 60_000_000:
            # Those of two channels have ids of their own.
            _publish(redis_server, names[:2], number)
            assert healthy.next().data.startswith(f"<{number}>")
            number += 1
            assert number < 2000
        assert metric(worker, "unsent_bytes") < 0.4 * metric(worker, "queued_bytes")
        assert metric(worker, "streams") == 21
        _publish(redis_server, names[:1], number, 20)
        for each in slow:
            each.read_until(b"<%d>xxx" % number)
        wait_until(lambda: metric(worker, "unsent_bytes") == 0, "nothing waits")
