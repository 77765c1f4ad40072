"""What one request can cost: the limits of a replay are those of the request, whatever it names."""

import json
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.slow import Slow
from testing.stream import Received, Stream, open_stream
from testing.transient import transient
from testing.waiting import wait_until

_PREVIOUS_VERSION = "1700000000000-0"


def _publish_durable(server: RedisServer, channels: Sequence[str], rounds: int, size: int = 0) -> list[str]:
    """Numbers in turn on all channels; returns what was published, in order."""
    texts = [f"{number}:".ljust(size, "x") for number in range(rounds * len(channels))]
    pipeline = server.client().pipeline(transaction=False)
    for number, text in enumerate(texts):
        pipeline.fcall("gateway_publish", 1, channels[number % len(channels)], text)
    pipeline.execute()
    return texts


def _until_open(stream: Stream) -> list[Received]:
    """What comes before `gateway.open`, behind which a last message has to have been published."""
    events = []
    while (event := stream.next()).data != "end":
        events.append(event)
    return events


def _numbers(events: Sequence[Received]) -> list[int]:
    """Of the messages, which are in order on each channel; between two ticks, channels come one after the other."""
    numbers = [int(event.data.partition(":")[0]) for event in events if event.type == "message"]
    for channel in range(10):
        own = [number for number in numbers if number % 10 == channel]
        assert own == sorted(own)
    return sorted(numbers)


def _gaps(events: Sequence[Received]) -> list[tuple[str, str]]:
    told = [json.loads(event.data) for event in events if event.type == "gateway.gap"]
    return [(each["channel"], each["reason"]) for each in told]


def _answer(connection: socket.socket) -> str:
    """The whole answer of a request that is turned away."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    return transient(body.decode()).reason


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with 30 durable messages on each of ten channels."""
    directory = tmp_path_factory.mktemp("filled")
    with RedisServer(directory) as server, Worker(directory, server.url):
        _publish_durable(server, [f"many.{place}" for place in range(10)], 30, 100)
        yield server


@pytest.mark.parametrize("limits", [{"replay_events": 50}, {"replay_bytes": 5_000, "replay_events": 100}], ids=str)
@pytest.mark.parametrize("asked", ["channels", "pattern", "both", "previous version"])
def test_the_limits_of_a_replay_are_those_of_the_request(
    tmp_path: Path, filled: RedisServer, asked: str, limits: dict[str, int]
) -> None:
    names = [f"many.{place}" for place in range(10)]
    params = [("channel", name) for name in names] if asked != "pattern" else []
    params += [("pattern", "many.*")] if asked in ("pattern", "both") else []
    headers = {"Last-Event-ID": _PREVIOUS_VERSION} if asked == "previous version" else {}
    most = limits["replay_events"]
    params += [("history", str(most))] if not headers else []
    with (
        Worker(tmp_path, filled.url, allowed_patterns="*", **limits) as worker,
        open_stream(worker.url, params=params, headers=headers) as stream,
    ):
        filled.client().publish("many.0", "end")
        events = _until_open(stream)
        assert metric(worker, "history_reads_total") == 1
        assert metric(worker, "replayed_total") == 50
    assert _numbers(events) == list(range(250, 300)), "the newest of all"
    reason = "unknown_id" if headers else "too_many"
    # A pattern that stands before the channels delivers their events, and has had as many as were asked for.
    cut = names if asked in ("channels", "previous version") else ["many.*"] if most > 50 else []
    assert set(_gaps(events)) >= {(name, reason) for name in cut}
    assert [event.type for event in events[: len(cut)]] == ["gateway.gap"] * len(cut), "before what follows them"


def test_patterns_with_very_many_channels(tmp_path: Path, private_redis: RedisServer) -> None:
    names = [f"very.many.{place}" for place in range(250)]
    with Worker(tmp_path, private_redis.url, allowed_patterns="*", replay_events=1000) as worker:
        texts = _publish_durable(private_redis, names, 6)
        with open_stream(worker.url, params=[("pattern", "very.*"), ("history", "1000")]) as stream:
            private_redis.client().publish("very.last", "end")
            got = sorted(int(event.data.rstrip(":")) for event in _until_open(stream))
        assert got == list(range(len(texts)))[-1000:], "the newest of all, each once"


def test_history_within_the_limits_is_no_gap(tmp_path: Path, filled: RedisServer) -> None:
    names = [f"many.{place}" for place in range(10)]
    with (
        Worker(tmp_path, filled.url) as worker,
        open_stream(worker.url, names, params=[("history", "3")]) as stream,
    ):
        filled.client().publish("many.0", "end")
        events = _until_open(stream)
    assert _numbers(events) == list(range(270, 300))


def test_how_many_read_history_at_once_is_bounded_and_who_leaves_reads_no_more(
    tmp_path: Path, private_redis: RedisServer
) -> None:
    settings: dict[str, Any] = {
        "replays_at_once": 2, "replays_waiting": 3, "subscribe_timeout": 600, "canary_interval": 0,
        "redis_connect_timeout": 60,
    }  # fmt: skip
    names = [f"c{place}" for place in range(8)]
    with Worker(tmp_path, private_redis.url, **settings) as worker, open_stream(worker.url, names):
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with ExitStack() as stack:
                for place, name in enumerate(names[:5], 1):
                    stack.enter_context(Slow(worker, f"channel={name}&history=5"))
                    stack.enter_context(Slow(worker, f"channel={name}&history=5"))  # shares the other's reading
                    wait_until(lambda place=place: metric(worker, "streams") == 1 + 2 * place, "registered")  # type: ignore[misc]
                wait_until(lambda: metric(worker, "replays_waiting") == 3, "waiting")
                assert metric(worker, "replays_running") == 2
                for name in names[5:]:
                    with Slow(worker, f"channel={name}&history=5") as turned_away:
                        assert _answer(turned_away.socket) == "busy"
                assert metric(worker, "turned_away_total", reason="busy") == 3
            wait_until(lambda: metric(worker, "streams") == 1, "forgotten")
            wait_until(lambda: metric(worker, "replays_running") + metric(worker, "replays_waiting") == 0, "stopped")
        finally:
            private_redis.send_signal(signal.SIGCONT)
        with open_stream(worker.url, "c0", params=[("history", "5")]) as stream:
            private_redis.client().publish("c0", "end")
            assert _until_open(stream) == [], "and others are served"


def test_who_waits_too_long_for_its_turn_is_told_to_come_back(tmp_path: Path, private_redis: RedisServer) -> None:
    settings: dict[str, Any] = {
        "replays_at_once": 1,
        "subscribe_timeout": 0.5,
        "canary_interval": 0,
        "redis_connect_timeout": 60,
    }
    with Worker(tmp_path, private_redis.url, **settings) as worker, open_stream(worker.url, ["a", "b"]):
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with Slow(worker, "channel=a&history=5"):
                wait_until(lambda: metric(worker, "replays_running") == 1, "reading")
                with Slow(worker, "channel=b&history=5") as waiting:
                    assert _answer(waiting.socket) == "busy"
        finally:
            private_redis.send_signal(signal.SIGCONT)


def test_who_reads_history_when_the_worker_goes_is_told_to_come_back(
    tmp_path: Path, private_redis: RedisServer
) -> None:
    settings: dict[str, Any] = {
        "subscribe_timeout": 600, "canary_interval": 0, "redis_connect_timeout": 60, "drain_window": 0,
        "shutdown_timeout": 5,
    }  # fmt: skip
    with Worker(tmp_path, private_redis.url, **settings) as worker, open_stream(worker.url, "a"):
        private_redis.send_signal(signal.SIGSTOP)
        try:
            with Slow(worker, "channel=a&history=5") as reads:
                wait_until(lambda: metric(worker, "replays_running") == 1, "reading")
                worker.send_signal(signal.SIGTERM)
                assert _answer(reads.socket) == "draining"
        finally:
            private_redis.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("delivery", ["direct", "portable"])
@pytest.mark.parametrize("gzip", [True, False])
def test_a_long_replay_goes_over_into_what_comes_meanwhile(
    tmp_path: Path, private_redis: RedisServer, delivery: str, gzip: bool
) -> None:
    with Worker(tmp_path, private_redis.url, delivery=delivery, gzip=gzip) as worker:
        kept = _publish_durable(private_redis, ["a", "b"], 2000)
        over = threading.Event()

        def publish() -> None:
            client, number = private_redis.client(), 0
            while not over.is_set():
                client.publish("ab"[number % 2], f"live {number}")
                number += 1
                over.wait(0.001)
            client.publish("a", "end")

        with open_stream(worker.url, ["a", "b"]), ExitStack() as stack:  # everything is heard from the beginning
            thread = threading.Thread(target=publish)
            thread.start()
            try:
                wait_until(lambda: metric(worker, "messages_total") > 20, "live messages")
                streams = [
                    stack.enter_context(open_stream(worker.url, ["a", "b"], params=[("history", "2000")]))
                    for _ in range(4)
                ]
            finally:
                over.set()
                thread.join()
            for stream in streams:
                events = [event.data for event in _until_open(stream)]
                live = [int(text.removeprefix("live ")) for text in events if text.startswith("live ")]
                for channel in range(2):
                    own = [number for number in live if number % 2 == channel]
                    assert own == list(range(own[0], own[0] + 2 * len(own), 2)), "each once, and in order"
                assert abs(live[-1] - live[-2]) < 3, "up to the end of both"
                durable = sorted(int(text.rstrip(":")) for text in events if not text.startswith("live "))
                assert durable == list(range(len(kept)))[-len(durable) :], "the newest"
                assert len(durable) > 1000


def test_a_client_that_comes_back_for_a_long_replay_loses_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, history_events=5000) as worker, open_stream(worker.url, ["x", "y"]):
        with open_stream(worker.url, ["x", "y"]) as stream:
            redis_server.client().publish("x", "seen")
            assert stream.next().data == "seen"
            last = stream.last_event_id
        pipeline = redis_server.client().pipeline(transaction=False)
        for number in range(4000):
            pipeline.publish("xy"[number % 2], str(number))
        pipeline.execute()
        wait_until(lambda: metric(worker, "messages_total") == 4001, "heard")
        with open_stream(worker.url, ["x", "y"], headers={"Last-Event-ID": last}) as stream:
            redis_server.client().publish("x", "end")
            got = [int(event.data) for event in _until_open(stream)]
            assert sorted(got, key=lambda number: number % 2) == [*range(0, 4000, 2), *range(1, 4000, 2)]
            assert metric(worker, "history_reads_total") == 0


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_clients_that_never_read_their_replay_share_it_and_are_bounded(
    tmp_path: Path, private_redis: RedisServer, delivery: str
) -> None:
    limit, size = 12_000_000, 8_000_000
    settings: dict[str, Any] = {"replay_total_bytes": limit, "delivery": delivery, "stall_timeout": 3, "gzip": False}
    with Worker(tmp_path, private_redis.url, **settings) as worker, ExitStack() as stack:
        _publish_durable(private_redis, ["a"], 2000, 4000)
        for _ in range(10):
            stack.enter_context(Slow(worker, "channel=a&history=2000"))
        wait_until(lambda: metric(worker, "queued_streams") == 10, "ten that don't read")
        assert size <= metric(worker, "replay_bytes") < 1.1 * size, "one replay, shared"
        with Slow(worker, "channel=a&history=1999") as other:
            assert _answer(other.socket) == "busy"
        assert metric(worker, "replay_bytes") < limit
        with open_stream(worker.url, "a", params=[("history", "2000")]) as reads:
            private_redis.client().publish("a", "end")
            assert len(_until_open(reads)) == 2000
        wait_until(lambda: metric(worker, "streams_closed_total", reason="stalled") == 10, "stalled")
        wait_until(lambda: metric(worker, "replay_bytes") == 0, "free again")
        with open_stream(worker.url, "a", params=[("history", "1999")]) as reads:
            private_redis.client().publish("a", "end")
            assert len(_until_open(reads)) == 1998, "and the last message of before"


@pytest.mark.parametrize("delivery", ["direct", "portable"])
def test_a_stream_that_ends_has_had_its_replay(tmp_path: Path, private_redis: RedisServer, delivery: str) -> None:
    settings: dict[str, Any] = {"delivery": delivery, "drain_window": 0, "shutdown_timeout": 20, "gzip": False}
    with Worker(tmp_path, private_redis.url, **settings) as worker:
        _publish_durable(private_redis, ["a"], 2000, 4000)
        with Slow(worker, "channel=a&history=2000") as connection:
            wait_until(lambda: metric(worker, "queued_streams") == 1, "it doesn't read yet")
            worker.send_signal(signal.SIGTERM)
            answer = b""
            while piece := connection.socket.recv(1 << 20):
                answer += piece
    assert answer.count(b"\ndata: ") >= 2000
    assert answer.index(b"gateway.open") < answer.index(b"gateway.closing")
