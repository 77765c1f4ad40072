"""Nothing lost, or said: Redis that comes back, slow clients, storms, workers that start."""

import itertools
import json
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.slow import Slow
from testing.stream import Received, Stream, open_stream
from testing.transient import transient
from testing.waiting import wait_until


def _durable(worker: Worker, channel: str, message: str) -> None:
    httpx.post(f"{worker.url}/publish/{channel}?durable=1", content=message).raise_for_status()


def _reason(event: Received) -> str:
    assert event.type == "gateway.gap", event
    return str(json.loads(event.data)["reason"])


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_the_hole_of_a_lost_connection_is_filled_in_durable_channels(
    tmp_path: Path, private_redis: RedisServer, delivery: str
) -> None:
    client = private_redis.client()
    with (
        Worker(
            tmp_path,
            private_redis.url,
            delivery=delivery,
            redis_backoff_max=2,
            canary_interval=0.1,
            durable_channels="kept*",
        ) as worker,
        Worker(tmp_path, private_redis.url) as publisher,
        open_stream(worker.url, ["kept", "kept2"]) as stream,
        open_stream(worker.url, "plain") as plain,
    ):
        _durable(publisher, "kept", "0")
        _durable(publisher, "kept2", "1")
        client.publish("plain", "0")
        assert [event.data for event in stream.take(2)] == ["0", "1"]
        assert plain.next().data == "0"
        wait_until(lambda: metric(worker, "redis_lag_seconds") > 0, "a canary back")
        for number in range(5):
            before = metric(worker, "redis_connects_total")
            # The worker stands still while its connection is closed and others publish, so it hears none of it.
            worker.send_signal(signal.SIGSTOP)
            client.client_kill_filter(_type="pubsub")
            for offset in range(4):
                _durable(publisher, "kept2" if offset % 2 else "kept", str(2 + number * 4 + offset))
            client.publish("plain", "unheard")
            worker.send_signal(signal.SIGCONT)
            reconnected = before + 1
            wait_until(lambda: metric(worker, "redis_connects_total") == reconnected, "connected again")  # noqa: B023
            worker.wait_ready()
        events = stream.take(20)
        assert {event.type for event in events} == {"message"}
        numbers = [int(event.data) for event in events]
        for rest in range(2):  # each channel in its order
            assert [number for number in numbers if number % 2 == rest] == list(range(2 + rest, 22, 2))
        client.publish("plain", "live")
        seen = [plain.next()]
        while seen[-1].data != "live":
            seen.append(plain.next())
        # One for each time, but for those that came before the one before was told.
        assert {_reason(event) for event in seen[:-1]} == {"redis_lost"}
        assert len(seen) - 1 <= 5
        _durable(publisher, "kept", "live")
        assert stream.next().data == "live"
        assert metric(worker, "history_reads_total") > 0


def test_a_redis_that_lost_its_data_is_told_of(tmp_path: Path, private_redis: RedisServer) -> None:
    with (
        Worker(tmp_path, private_redis.url, canary_interval=0.1) as worker,
        open_stream(worker.url, "kept") as stream,
    ):
        _durable(worker, "kept", "0")
        stream.next()
        wait_until(lambda: metric(worker, "redis_lag_seconds") > 0, "a canary back")
        private_redis.kill()
        private_redis.start()
        assert _reason(stream.next()) == "history_lost"
        worker.wait_ready()
        _durable(worker, "kept", "1")
        assert stream.next().data == "1"


def test_a_silent_redis_is_noticed(tmp_path: Path, private_redis: RedisServer) -> None:
    with (
        Worker(tmp_path, private_redis.url, canary_interval=0.2, redis_connect_timeout=1) as worker,
        open_stream(worker.url, "a") as stream,
    ):
        assert worker.ready()
        private_redis.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: not worker.ready(), "silence noticed")
            assert "redis" in httpx.get(f"{worker.url}/readyz").json()["problems"]
        finally:
            private_redis.send_signal(signal.SIGCONT)
        worker.wait_ready()
        assert _reason(stream.next()) == "redis_lost"
        private_redis.client().publish("a", "1")
        assert stream.next().data == "1"
        assert "silent for" in worker.output


def _flood(worker: Worker, server: RedisServer, channel: str, healthy: Stream, count: int = 300) -> None:
    for number in range(count):
        server.client().publish(channel, f"<{number}>" + "x" * 50_000)
        assert healthy.next().data.startswith(f"<{number}>")
    assert metric(worker, "streams") == 2


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_drop_oldest_keeps_the_stream_and_says_what_it_did(
    tmp_path: Path, redis_server: RedisServer, delivery: str, channel: str
) -> None:
    settings: dict[str, Any] = {"overflow": "other=latest drop-oldest", "queue_bytes": 500_000, "delivery": delivery}
    with Worker(tmp_path, redis_server.url, **settings) as worker, open_stream(worker.url, channel) as healthy:
        slow = Slow(worker, f"channel={channel}")
        wait_until(lambda: metric(worker, "streams") == 2, "both open")
        _flood(worker, redis_server, channel, healthy)
        assert metric(worker, "queued_bytes") <= 600_000
        assert metric(worker, "dropped_events_total") > 0
        assert metric(worker, "gaps_total", reason="overflow") == 1
        got = slow.read_until(b"<299>")
        slow.socket.close()
    assert b'event: gateway.gap\ndata: {"channel":"%b","reason":"overflow"' % channel.encode() in got
    numbers = [int(piece.partition(b">")[0]) for piece in got.split(b"data: <")[1:]]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0
    assert numbers[-1] == 299
    assert len(numbers) < 300


def test_latest_keeps_the_newest_of_each_channel(tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    with (
        Worker(tmp_path, redis_server.url, overflow=f"{channel}*=latest,disconnect") as worker,
        open_stream(worker.url, [channel, channel + "2"]) as healthy,
    ):
        slow = Slow(worker, f"channel={channel}&channel={channel}2")
        wait_until(lambda: metric(worker, "streams") == 2, "both open")
        for number in range(200):
            name = channel + "2" * (number % 2)
            redis_server.client().publish(name, f"<{number}>" + "x" * 50_000)
            healthy.next()
        assert metric(worker, "queued_events") <= 2
        got = slow.read_until(b"<199>")
        slow.socket.close()
    numbers = [int(piece.partition(b">")[0]) for piece in got.split(b"data: <")[1:]]
    assert numbers == sorted(numbers)
    assert numbers[-2:] == [198, 199]
    assert b"gateway.gap" not in got


def test_a_client_that_stands_still_is_ended(tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    with (
        Worker(tmp_path, redis_server.url, stall_timeout=0.5, queue_bytes=100_000_000) as worker,
        open_stream(worker.url, channel) as healthy,
    ):
        slow = Slow(worker, f"channel={channel}")
        wait_until(lambda: metric(worker, "streams") == 2, "both open")
        for number in range(100):
            redis_server.client().publish(channel, f"<{number}>" + "x" * 50_000)
            healthy.next()
        wait_until(lambda: metric(worker, "streams_closed_total", reason="stalled") == 1, "ended")
        slow.socket.close()
        redis_server.client().publish(channel, "after")
        assert healthy.next().data == "after"
        assert "stream dropped: stalled" in worker.output


def test_more_new_streams_than_the_budget_are_told_to_come_back(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, accept_rate=5) as worker, ExitStack() as stack:
        turned_away = 0
        for _ in range(30):
            with httpx.stream("GET", f"{worker.url}/events?channel=a") as response:
                assert response.status_code == 200
                first = ""
                for text in response.iter_text():
                    first += text
                    if first.endswith("\n\n"):
                        break
            if "event: gateway.open\n" not in first:
                assert transient(first).reason == "busy"
                turned_away += 1
        assert turned_away == metric(worker, "turned_away_total", reason="busy")
        assert 0 < turned_away <= 25

        def served() -> bool:
            stream = stack.enter_context(httpx.stream("GET", f"{worker.url}/events?channel=a"))
            return "event: gateway.open\n" in next(stream.iter_text())

        wait_until(served, "room again")


def test_streams_end_at_their_age_and_resume(tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    with Worker(tmp_path, redis_server.url, max_age=1) as worker:
        client = redis_server.client()
        with open_stream(worker.url, channel) as stream:
            client.publish(channel, "0")
            stream.next()
            last = stream.last_event_id
            assert [(event.type, json.loads(event.data)) for event in stream.rest()] == [
                ("gateway.closing", {"reason": "max_age"})
            ]
        assert metric(worker, "streams_closed_total", reason="max_age") == 1
        client.publish(channel, "1")
        with open_stream(worker.url, channel, headers={"Last-Event-ID": last}) as stream:
            assert stream.next().data == "1"


def test_a_worker_that_starts_learns_what_the_others_know(tmp_path: Path, redis_server: RedisServer) -> None:
    client = redis_server.client()
    prefix = "warm:"
    with (
        Worker(tmp_path, redis_server.url, channel_prefix=prefix) as old,
        open_stream(old.url, ["a", "b"]) as stream,
        open_stream(old.url, "quiet") as quiet,
    ):
        client.publish("warm:quiet", "only one, long ago")
        quiet.next()
        ids = []
        for number in range(6):
            client.publish("warm:b" if number % 2 else "warm:a", str(number))
            stream.next()
            ids.append(stream.last_event_id)
        with Worker(tmp_path, redis_server.url, channel_prefix=prefix) as new:
            for at, id_ in enumerate(ids):
                with open_stream(new.url, ["a", "b"], headers={"Last-Event-ID": id_}) as moved:
                    expected = [str(number) for number in range(at + 1, 6)]
                    got = [event.data for event in moved.take(len(expected))]
                    for name in ("024", "135"):  # each channel in its order
                        assert [text for text in got if text in name] == [text for text in expected if text in name]
            with (
                open_stream(new.url, "quiet", headers={"Last-Event-ID": quiet.last_event_id}) as moved,
                open_stream(new.url, ["a", "b"], headers={"Last-Event-ID": ids[-1]}) as other,
            ):
                # The very next messages have the same ids on both.
                client.publish("warm:quiet", "next")
                assert (moved.next().data, quiet.next().data) == ("next", "next")
                assert moved.last_event_id == quiet.last_event_id
                client.publish("warm:a", "6")
                assert (other.next().data, stream.next().data) == ("6", "6")
                assert other.last_event_id == stream.last_event_id
            assert metric(new, "gaps_total", reason="not_kept") == 0


def test_clients_hop_to_workers_that_just_started_and_miss_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    # However long a worker takes to start here, the others remember where the client was.
    settings: dict[str, Any] = {"channel_prefix": "hop:", "history_events": 100_000, "history_bytes": 100_000_000}
    stop = threading.Event()
    client = redis_server.client()

    def publish() -> None:
        for number in itertools.count():
            client.publish("hop:a", str(number))
            if stop.wait(0.003):
                return

    publisher = threading.Thread(target=publish)
    with ExitStack() as stack:
        worker = stack.enter_context(Worker(tmp_path, redis_server.url, **settings))
        with open_stream(worker.url, "a") as stream:
            publisher.start()
            try:
                expected = int(stream.next().data) + 50
                stream.take(50)
                last = stream.last_event_id
                for _ in range(4):
                    worker = stack.enter_context(Worker(tmp_path, redis_server.url, **settings))
                    with open_stream(worker.url, "a", headers={"Last-Event-ID": last}) as moved:
                        for _ in range(100):
                            expected += 1
                            event = moved.next()
                            assert (event.type, event.data) == ("message", str(expected))
                        last = moved.last_event_id
            finally:
                stop.set()
                publisher.join()


def test_a_worker_that_does_not_answer_keeps_nobody_from_starting(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, channel_prefix="mute:") as hanging, open_stream(hanging.url, "a"):
        hanging.send_signal(signal.SIGSTOP)
        try:
            with (
                Worker(tmp_path, redis_server.url, channel_prefix="mute:") as new,
                open_stream(new.url, "a") as stream,
            ):
                redis_server.client().publish("mute:a", "1")
                assert stream.next().data == "1"
        finally:
            hanging.send_signal(signal.SIGCONT)
