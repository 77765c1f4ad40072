"""Redis compares every PUBLISH with all patterns, so there are few."""

from pathlib import Path
from typing import Any

import httpx

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.transient import transient
from testing.waiting import wait_until


def test_patterns_have_limits_of_their_own(tmp_path: Path, redis_server: RedisServer) -> None:
    settings: dict[str, Any] = {"allowed_patterns": "*", "max_stream_patterns": 2, "max_patterns": 3, "linger": 3600}
    with Worker(tmp_path, redis_server.url, **settings) as worker:
        answer = httpx.get(f"{worker.url}/events?pattern=a*&pattern=b*&pattern=c*")
        assert answer.status_code == 400
        assert "max_stream_patterns" in answer.text
        with open_stream(worker.url, params=[("pattern", "a*"), ("pattern", "b*")]):
            with open_stream(worker.url, params=[("pattern", "c*")]):
                assert metric(worker, "patterns") == 3
                turned_away = transient(httpx.get(f"{worker.url}/events?channel=x&pattern=d*").text)
                assert turned_away.reason == "full"
                with open_stream(worker.url, ["x"], params=[("pattern", "a*")]):
                    assert metric(worker, "patterns") == 3, "one that is listened to already costs nothing"
            wait_until(lambda: metric(worker, "streams") == 1, "left")
            with open_stream(worker.url, params=[("pattern", "d*")]) as stream:
                assert metric(worker, "patterns") == 3, "one that only lingers makes room"
                redis_server.client().publish("dd", "heard")
                assert stream.next().data == "heard"
