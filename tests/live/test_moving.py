"""Clients that move to a worker which has not listened to their channel yet."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import cast

import psutil
import pytest
import redis

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import Stream, open_stream
from testing.waiting import wait_until


class Fleet:
    """Three workers on one Redis."""

    def __init__(self, workers: list[Worker], client: redis.Redis) -> None:
        self.workers = workers
        self.redis = client

    def publish(self, channel: str, *texts: str) -> None:
        for text in texts:
            self.redis.publish(channel, text)


@pytest.fixture(scope="module")
def fleet(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("fleet")
        workers = [stack.enter_context(Worker(directory, redis_server.url, allowed_patterns="*")) for _ in range(3)]
        yield Fleet(workers, stack.enter_context(redis_server.client()))


def _back(worker: Worker, channels: list[str] | str, last_event_id: str) -> AbstractContextManager[Stream]:
    return open_stream(worker.url, channels, headers={"Last-Event-ID": last_event_id})


@pytest.mark.parametrize("seen", [1, 2, 5])
def test_a_channel_with_one_client_moves_with_it(fleet: Fleet, channel: str, seen: int) -> None:
    one, other, third = fleet.workers
    with open_stream(one.url, channel) as stream:
        fleet.publish(channel, *map(str, range(seen)))
        stream.take(seen)
        last = stream.last_event_id
    fleet.publish(channel, "missed", "missed too")
    with _back(other, channel, last) as stream:
        fleet.publish(channel, "live")
        assert [event.data for event in stream.take(3)] == ["missed", "missed too", "live"]
        last = stream.last_event_id
    with _back(third, channel, last) as stream:
        fleet.publish(channel, "more")
        assert stream.next().data == "more"


def test_ids_are_alike_from_the_first_message_on(fleet: Fleet) -> None:
    """Though streams on all workers begin at the same time."""
    for turn in range(20):
        channel = f"first-{turn}"
        with ExitStack() as stack:
            streams = asyncio.run(_open_at_once([worker.url for worker in fleet.workers], channel, stack))
            fleet.publish(channel, "a", "b", "c")
            ids = [[(stream.next().data, stream.last_event_id) for _ in range(3)] for stream in streams]
        assert ids[0] == ids[1] == ids[2]


async def _open_at_once(urls: list[str], channel: str, stack: ExitStack) -> list[Stream]:
    return await asyncio.gather(*[asyncio.to_thread(stack.enter_context, open_stream(url, channel)) for url in urls])


def test_messages_that_come_while_a_channel_is_opened_elsewhere_come_once(fleet: Fleet) -> None:
    one, other, _ = fleet.workers
    for turn in range(5):
        channel = f"while-{turn}"
        with open_stream(one.url, channel) as stream:
            fleet.publish(channel, *map(str, range(10)))
            stream.take(4)
            with ExitStack() as stack:
                moved = asyncio.run(_open_while_publishing(fleet, channel, other, stream.last_event_id, stack))
                texts = [event.data for event in moved.take(897)]
        assert texts == [*map(str, range(4, 900)), "end"]


async def _open_while_publishing(
    fleet: Fleet, channel: str, worker: Worker, last_event_id: str, stack: ExitStack
) -> Stream:
    def publish() -> None:
        for number in range(10, 900):
            fleet.publish(channel, str(number))
        fleet.publish(channel, "end")

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    stream = await asyncio.to_thread(stack.enter_context, _back(worker, channel, last_event_id))
    await publishing
    return stream


def test_the_order_between_channels_is_never_guessed(fleet: Fleet, channel: str) -> None:
    """One worker heard both channels, the other only one of them until the client came."""
    one, other, _ = fleet.workers
    known, new = channel + "known", channel + "new"
    with open_stream(other.url, known), open_stream(one.url, [known, new]) as stream:
        for number in range(3):
            fleet.publish(new, f"new {number}")
            fleet.publish(known, f"known {number}")
        ids = []
        for _ in range(6):
            stream.next()
            ids.append(stream.last_event_id)
    fleet.publish(new, "new 3")
    fleet.publish(known, "known 3")
    everything = [f"{name} {number}" for number in range(4) for name in ("new", "known")]
    for at, id_ in enumerate(ids):
        with _back(other, [known, new], id_) as stream:
            fleet.publish(new, "end")
            texts: list[str] = []
            told = set()
            while "end" not in texts:
                event = stream.next()
                if event.type == "gateway.gap":
                    told.add(json.loads(event.data)["channel"])
                else:
                    texts.append(event.data)
        texts.remove("end")
        missed = [text for text in everything[at + 1 :] if text not in texts]
        assert {known if text.startswith("known") else new for text in missed} <= told
        if at < 5:
            assert not set(everything[: at + 1]) & set(texts), "an event came twice"


def test_what_is_taken_over_is_older_than_what_was_heard_here(fleet: Fleet, channel: str) -> None:
    """The newest event here must not stand for the place before all that another worker knows of a new channel."""
    one, other, _ = fleet.workers
    known, new = channel + "known", channel + "new"
    with open_stream(other.url, known) as here, open_stream(one.url, [known, new]) as stream:
        fleet.publish(new, "seen", "seen too")
        fleet.publish(known, "last")
        stream.take(3)
        here.next()
        with _back(other, [known, new], stream.last_event_id) as moved:
            fleet.publish(new, "live")
            assert moved.next().data == "live"


def test_ids_are_alike_after_one_worker_alone_has_lost_its_connection(fleet: Fleet, channel: str) -> None:
    one, other, _ = fleet.workers
    with open_stream(one.url, channel) as elsewhere, open_stream(other.url, channel) as stream:
        fleet.publish(channel, "1", "2", "3")
        stream.take(3)
        connects = metric(other, "redis_connects_total")
        pipe = fleet.redis.pipeline(transaction=False)
        pipe.client_kill_filter(_id=_subscription(fleet.redis, other))
        pipe.publish(channel, "lost")
        pipe.execute()
        assert stream.next().data == "lost", "the other worker has heard it"
        wait_until(lambda: metric(other, "redis_connects_total") > connects and other.ready(), "it is back")
        fleet.publish(channel, "seen")
        assert stream.next().data == "seen"
        last = stream.last_event_id
        assert [event.data for event in elsewhere.take(5)] == ["1", "2", "3", "lost", "seen"]
        assert elsewhere.last_event_id == last
    fleet.publish(channel, "missed")
    with _back(one, channel, last) as stream:
        fleet.publish(channel, "live")
        assert [event.data for event in stream.take(2)] == ["missed", "live"]


def _subscription(client: redis.Redis, worker: Worker) -> str:
    """The id of the worker's subscribing connection."""
    ports = {connection.laddr.port for connection in psutil.Process(worker.pid).net_connections("tcp")}
    [found] = [each for each in client.client_list("pubsub") if int(each["addr"].rpartition(":")[2]) in ports]
    return str(found["id"])


def test_a_worker_that_hangs_keeps_nobody_waiting_for_long(fleet: Fleet, channel: str) -> None:
    one, other, third = fleet.workers
    with open_stream(one.url, channel):
        third.send_signal(signal.SIGSTOP)
        try:
            with open_stream(other.url, channel) as stream:
                fleet.publish(channel, "x")
                assert stream.next().data == "x"
        finally:
            third.send_signal(signal.SIGCONT)
    wait_until(third.ready, "it goes on")


def test_who_listens_to_everything_is_not_waited_for(fleet: Fleet, channel: str) -> None:
    """A pattern matches the gateway's own channels, too."""
    one, other, _ = fleet.workers
    with open_stream(one.url, params=[("pattern", "*")]), open_stream(one.url, channel):
        began = time.monotonic()
        with open_stream(other.url, channel):
            assert time.monotonic() - began < 0.9


def test_a_pattern_that_matches_does_not_double_what_is_asked_about(fleet: Fleet, channel: str) -> None:
    one, other, _ = fleet.workers
    through = [("pattern", channel + "*")]
    with (
        open_stream(one.url, channel),
        open_stream(other.url, params=through) as pattern,
        open_stream(other.url, channel, params=through) as both,
    ):
        fleet.publish(channel, "1", "2")
        assert [event.data for event in both.take(2)] == ["1", "2"]
        assert [event.data for event in pattern.take(2)] == ["1", "2"]


_FORGED = (b"", b"x", b"2 ask", b"[]", b"{", b"[1, {}]", b"[[[]], null]", b"5", b"\xff 1 null", b"\x1egateway:1-1\nx")


def test_forged_questions_and_answers_harm_nobody(fleet: Fleet, channel: str) -> None:
    """They must cost neither the connection to Redis nor a client its stream: after a 500 a browser never returns."""
    one = fleet.workers[0]
    connects = metric(one, "redis_connects_total")
    channels = cast("list[bytes]", fleet.redis.pubsub_channels("gateway.*"))
    own = [name for name in channels if not name.startswith(b"gateway.tick.")]
    assert len(own) >= 4, "those of three workers, and that of all"
    with open_stream(one.url, channel) as stream:
        for name in own:
            for message in _FORGED:
                fleet.redis.publish(name, message)
        fleet.publish(channel, "on")
        assert stream.next().data == "on"
    for id_ in ("unknown", "unknown too"):
        with _back(one, channel, id_) as stream:
            assert stream.next().type == "gateway.gap"
    assert metric(one, "redis_connects_total") == connects


def test_answers_that_are_too_much_for_redis_are_a_gap(tmp_path: Path, channel: str) -> None:
    limit = ["--client-output-buffer-limit", "pubsub", "65536", "0", "0"]
    with (
        RedisServer(tmp_path, *limit) as server,
        server.client() as client,
        Worker(tmp_path, server.url) as old,
        open_stream(old.url, channel) as stream,
    ):
        client.publish(channel, "0")
        stream.next()
        first = stream.last_event_id
        for _ in range(100):
            client.publish(channel, "x" * 2000)
        stream.take(100)
        with Worker(tmp_path, server.url) as new, _back(new, channel, first) as other:
            assert other.next().type == "gateway.gap"
            assert metric(new, "redis_connects_total") > 1, "it was not too much"
            client.publish(channel, "on")
            while other.next().data != "on":
                pass
            assert stream.next().data == "on"
