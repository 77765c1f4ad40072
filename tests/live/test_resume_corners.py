"""Corners of resuming in which something was once lost, sent twice, or held up."""

import json
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until


def _durable(worker: Worker, channel: str, message: str) -> str:
    answer = httpx.post(f"{worker.url}/publish/{channel}?durable=1", content=message)
    return str(answer.raise_for_status().json()["id"])


def test_the_same_messages_on_two_channels_are_not_taken_for_each_other(
    worker: Worker, redis_server: RedisServer, channel: str
) -> None:
    names = [channel + "a", channel + "b"]
    client = redis_server.client()
    named = [("events", "channel")]
    with open_stream(worker.url, names) as stream:
        ids = []
        for number in range(10):
            for name in names:
                client.publish(name, str(number))
                stream.next()
                ids.append(stream.last_event_id)
    expected = [(name, str(number)) for number in range(10) for name in names]
    for at in range(len(ids) - 1):
        with open_stream(worker.url, names, params=named, headers={"Last-Event-ID": ids[at]}) as stream:
            rest = expected[at + 1 :]
            events = [(event.type, event.data) for event in stream.take(len(rest))]
            for name in names:
                assert [each for each in events if each[0] == name] == [each for each in rest if each[0] == name]


def test_a_channel_given_up_meanwhile_is_told_of(tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    """Even to a client whose last event, on another of its channels, is the newest that was received at all."""
    client = redis_server.client()
    kept, given_up = channel + "kept", channel + "given-up"
    with Worker(tmp_path, redis_server.url, linger=0.1) as worker, open_stream(worker.url, kept):
        with open_stream(worker.url, [kept, given_up]) as stream:
            client.publish(given_up, "1")
            client.publish(kept, "2")
            stream.take(2)
            last = stream.last_event_id
        wait_until(lambda: client.pubsub_numsub(given_up)[0][1] == 0, "it is given up")
        client.publish(given_up, "lost")
        with open_stream(worker.url, [kept, given_up], headers={"Last-Event-ID": last}) as stream:
            told = stream.next()
            assert (told.type, json.loads(told.data)["channel"]) == ("gateway.gap", given_up)


def test_durable_and_plain_channels_are_replayed_from_any_place(
    worker: Worker, redis_server: RedisServer, channel: str
) -> None:
    """Also from within a replay: a stream that breaks off there must get the rest, whatever the order is."""
    client = redis_server.client()
    plain, durable = channel + "plain", channel + "durable"
    texts = ["1 plain", "2 durable", "3 plain", "4 durable", "5 plain"]
    with open_stream(worker.url, [plain, durable]) as stream:
        ids = []
        for text in texts:
            if text.endswith("durable"):
                _durable(worker, durable, text)
            else:
                client.publish(plain, text)
            assert stream.next().data == text
            ids.append(stream.last_event_id)
    for at in range(4):
        with open_stream(worker.url, [plain, durable], headers={"Last-Event-ID": ids[at]}) as stream:
            expected = texts[at + 1 :]
            got = [event.data for event in stream.take(len(expected))]
            within = list(stream.ids)
        assert sorted(got) == expected
        for place, id_ in enumerate(within[:-1], 1):
            with open_stream(worker.url, [plain, durable], headers={"Last-Event-ID": id_}) as stream:
                assert sorted(event.data for event in stream.take(len(expected) - place)) == sorted(got[place:])
    with open_stream(worker.url, [plain, durable], params=[("history", "3")]) as stream:
        assert sorted(event.data for event in stream.take(5)) == texts


def test_a_publishers_id_is_found_as_it_is(worker: Worker, redis_server: RedisServer, channel: str) -> None:
    client = redis_server.client()
    own = ["1790000001000-deadbeef", "1790000000500-deadbeef", "again", "x", "again", "y"]
    with open_stream(worker.url, channel) as stream:
        for number, id_ in enumerate(own):
            client.publish(channel, json.dumps({"event": "", "data": str(number), "id": id_}))
        stream.take(len(own))
    for id_, rest in ((own[0], "12345"), (own[1], "2345"), ("x", "45")):
        with open_stream(worker.url, channel, headers={"Last-Event-ID": id_}) as stream:
            assert [event.data for event in stream.take(len(rest))] == list(rest)
    with open_stream(worker.url, channel, headers={"Last-Event-ID": "again"}) as stream:  # which of the two?
        assert json.loads(stream.next().data)["reason"] == "unknown_id"


def test_a_replay_is_bounded_and_says_so(tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    client = redis_server.client()
    with Worker(tmp_path, redis_server.url, replay_bytes=100_000, durable_events=1000) as worker:
        with open_stream(worker.url, channel) as stream:
            client.publish(channel, "first")
            stream.next()
            first = stream.last_event_id
        for number in range(50):
            client.publish(channel, f"{number}:" + "x" * 10_000)
        wait_until(lambda: metric(worker, "messages_total") == 51, "the worker has heard them")
        with open_stream(worker.url, channel, headers={"Last-Event-ID": first}) as stream:
            assert json.loads(stream.next().data)["reason"] == "too_many"
            numbers = [int(event.data.partition(":")[0]) for event in stream.take(9)]
            assert numbers == list(range(41, 50))
        start = _durable(worker, channel + "d", "first")
        for number in range(50):
            _durable(worker, channel + "d", f"{number}:" + "x" * 10_000)
    with (
        Worker(tmp_path, redis_server.url, replay_bytes=100_000, durable_channels=f"{channel}d") as fresh,
        open_stream(fresh.url, channel + "d", headers={"Last-Event-ID": start}) as stream,
    ):
        # Redis' answer is bounded, and doesn't tell what was left out from what is gone.
        assert json.loads(stream.next().data)["reason"] == "too_many"
        assert stream.next().data.startswith("41:")


def test_much_history_is_read_once_and_within_the_limit(
    tmp_path: Path, private_redis: RedisServer, channel: str
) -> None:
    """Fourteen megabytes are kept; a replay may have two, and five clients want the same."""
    client = private_redis.client()
    with Worker(tmp_path, private_redis.url, linger=0, replay_bytes=2_000_000) as worker:
        names = [f"{channel}-{number}" for number in range(24)]
        ids = [_durable(worker, names[0], "first")]
        for name in names:
            for number in range(30):
                client.fcall("gateway_publish", 1, name, f"{number}:" + "x" * 20_000)
        sent = client.info("stats")["total_net_output_bytes"]
        with ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(worker.url, names, headers={"Last-Event-ID": ids[0]}))
                for _ in range(5)
            ]
            for stream in streams:
                assert stream.next().type == "gateway.gap"
        sent = client.info("stats")["total_net_output_bytes"] - sent
        assert 1_000_000 < sent < 8_000_000
        assert metric(worker, "history_reads_total") == 1
        assert metric(worker, "redis_connects_total") == 1


def test_a_user_who_may_not_publish_has_streams_that_last(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.client().acl_setuser(
            "gw",
            enabled=True,
            passwords=["+pw"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            commands=["-publish"],
        )
        url = server.url.replace("redis://", "redis://gw:pw@")
        with Worker(tmp_path, url, canary_interval=0.1) as worker, open_stream(worker.url, "a") as stream:
            worker.wait_for_output("Redis refuses to count")
            server.client().publish("a", "1")
            assert stream.next().data == "1"
            assert metric(worker, "redis_connects_total") == 1


def test_a_process_that_stood_still_does_not_take_redis_for_dead(tmp_path: Path, redis_server: RedisServer) -> None:
    with (
        Worker(tmp_path, redis_server.url, canary_interval=0.1) as worker,
        open_stream(worker.url, "still") as stream,
    ):
        for number in range(3):
            worker.send_signal(signal.SIGSTOP)
            redis_server.client().publish("still", str(number))
            wait_until(lambda: b"T" in Path(f"/proc/{worker.pid}/stat").read_bytes(), "stopped")
            time.sleep(0.7)  # the fault itself: seven times the canary's interval
            worker.send_signal(signal.SIGCONT)
            assert stream.next().data == str(number)
        assert metric(worker, "redis_connects_total") == 1


def test_a_channel_with_both_kinds_is_never_silently_incomplete(
    tmp_path: Path, redis_server: RedisServer, channel: str
) -> None:
    client = redis_server.client()
    with Worker(tmp_path, redis_server.url, linger=0) as old:
        with open_stream(old.url, channel) as stream:
            client.publish(channel, "plain")
            last = _durable(old, channel, "kept")
            stream.take(2)
        wait_until(lambda: metric(old, "channels") == 0, "given up")
    client.publish(channel, "plain, unheard")
    _durable_by_function(redis_server, channel, "kept too")
    with (
        Worker(tmp_path, redis_server.url) as fresh,
        open_stream(fresh.url, channel, headers={"Last-Event-ID": last}) as stream,
    ):
        assert json.loads(stream.next().data)["reason"] == "not_kept"
        assert stream.next().data == "kept too"


def _durable_by_function(server: RedisServer, channel: str, message: str) -> None:
    server.client().fcall("gateway_publish", 1, channel, message)
