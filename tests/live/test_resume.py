"""Coming back: what was missed comes first, nothing twice, and what can't be had is said."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import redis

from gateway.broker.embedded import EmbeddedRedis
from gateway.memory.place import parse_place
from testing.http import metric
from testing.process import free_port
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until


class Pair(NamedTuple):
    """Two workers on one Redis."""

    one: Worker
    other: Worker
    redis: redis.Redis
    embedded: bool


@pytest.fixture(scope="module", params=["direct-redis", "portable-redis", "direct-embedded"])
def pair(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    delivery, _, kind = request.param.partition("-")
    directory = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        url = redis_server.url
        if kind == "embedded":
            url = stack.enter_context(EmbeddedRedis(free_port())).url
        one, other = (
            stack.enter_context(Worker(directory, url, delivery=delivery, allowed_patterns="*")) for _ in range(2)
        )
        yield Pair(one, other, stack.enter_context(redis.Redis.from_url(url)), kind == "embedded")


def _gap(data: str) -> tuple[str, str, str]:
    fields = json.loads(data)
    return fields["channel"], fields["reason"], fields["since"]


@pytest.mark.parametrize("same_worker", [True, False])
def test_plain_messages_missed_are_sent_again(pair: Pair, channel: str, same_worker: bool) -> None:
    back = pair.one if same_worker else pair.other
    with open_stream(pair.one.url, channel) as stream, open_stream(pair.other.url, channel):
        for number in range(5):
            pair.redis.publish(channel, str(number))
        assert [event.data for event in stream.take(5)] == list("01234")
        last = stream.last_event_id
    for number in range(5, 10):
        pair.redis.publish(channel, str(number))
    with open_stream(back.url, channel, headers={"Last-Event-ID": last}) as stream:
        pair.redis.publish(channel, "live")
        assert [event.data for event in stream.take(6)] == ["5", "6", "7", "8", "9", "live"]


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "Last-Event-ID"])
def test_the_id_can_stand_in_the_query_and_the_header_wins(pair: Pair, channel: str, name: str) -> None:
    with open_stream(pair.one.url, channel) as stream:
        ids = []
        for number in range(3):
            pair.redis.publish(channel, str(number))
            stream.next()
            ids.append(stream.last_event_id)
    with open_stream(pair.one.url, channel, params=[(name, ids[0])]) as stream:
        assert [event.data for event in stream.take(2)] == ["1", "2"]
    header = {"Last-Event-ID": ids[1]}
    with open_stream(pair.one.url, channel, params=[(name, ids[0])], headers=header) as stream:
        assert stream.next().data == "2"
    body = {"channels": [channel], "last_event_id": ids[0]}
    with open_stream(pair.one.url, method="POST", json=body) as stream:
        assert [event.data for event in stream.take(2)] == ["1", "2"]


def test_several_channels_resume_by_one_id_each_in_its_order(pair: Pair, channel: str) -> None:
    names = [f"{channel}-{letter}" for letter in "abc"]
    with open_stream(pair.one.url, names) as stream, open_stream(pair.other.url, names):
        for number in range(30):
            pair.redis.publish(names[number % 3], str(number))
        expected = [str(number) for number in range(30)]
        assert [event.data for event in stream.take(30)] == expected
    with open_stream(pair.one.url, names) as stream:
        pair.redis.publish(names[0], "30")
        stream.next()
        last = stream.last_event_id
    for number in range(31, 61):
        pair.redis.publish(names[number % 3], str(number))
    for worker in (pair.one, pair.other):
        with open_stream(worker.url, names, headers={"Last-Event-ID": last}) as stream:
            # Between channels a replay is in order to within a tick.
            numbers = [int(event.data) for event in stream.take(30)]
            for rest in range(3):
                assert [number for number in numbers if number % 3 == rest] == [*range(31, 61)][(rest + 2) % 3 :: 3]


def test_patterns_resume_too(pair: Pair, channel: str) -> None:
    both = [("pattern", f"{channel}*"), ("channel", f"{channel}-a")]
    with open_stream(pair.one.url, params=both) as stream:
        pair.redis.publish(f"{channel}-a", "0")
        stream.next()
        last = stream.last_event_id
    pair.redis.publish(f"{channel}-b", "1")
    pair.redis.publish(f"{channel}-a", "2")
    with open_stream(pair.one.url, params=both, headers={"Last-Event-ID": last}) as stream:
        assert [event.data for event in stream.take(2)] == ["1", "2"]


def test_a_publishers_own_id_is_found(pair: Pair, channel: str) -> None:
    with open_stream(pair.one.url, channel) as stream, open_stream(pair.other.url, channel):
        pair.redis.publish(channel, '{"event":"","data":"0","id":"mine"}')
        pair.redis.publish(channel, "1")
        assert stream.next().id == "mine"
    for worker in (pair.one, pair.other):
        with open_stream(worker.url, channel, headers={"Last-Event-ID": "mine"}) as stream:
            assert stream.next().data == "1"


def test_an_unknown_id_is_said(pair: Pair, channel: str) -> None:
    for unknown in ("nobody's", "1790000000123-9f3a61c2"):
        with open_stream(pair.one.url, [channel, channel + "2"], headers={"Last-Event-ID": unknown}) as stream:
            pair.redis.publish(channel, "live")
            gaps = stream.take(2)
            assert {event.type for event in gaps} == {"gateway.gap"}
            assert sorted(_gap(event.data) for event in gaps) == [
                (channel, "unknown_id", unknown),
                (channel + "2", "unknown_id", unknown),
            ]
            assert stream.next().data == "live"


def test_what_fell_out_of_the_ring_is_said(redis_server: RedisServer, tmp_path: Path, channel: str) -> None:
    client = redis_server.client()
    with Worker(tmp_path, redis_server.url, history_events=3) as worker:
        with open_stream(worker.url, channel) as stream:
            client.publish(channel, "0")
            stream.next()
            first = stream.last_event_id
            for number in range(1, 6):
                client.publish(channel, str(number))
            stream.take(3)
            third = stream.last_event_id
            stream.take(2)
        with open_stream(worker.url, channel, headers={"Last-Event-ID": first}) as stream:
            assert _gap(stream.next().data) == (channel, "not_kept", first)
            assert [event.data for event in stream.take(3)] == ["3", "4", "5"]
        with open_stream(worker.url, channel, headers={"Last-Event-ID": third}) as stream:
            assert [event.data for event in stream.take(2)] == ["4", "5"]


def test_without_history_what_was_missed_is_said_and_nothing_else(
    redis_server: RedisServer, tmp_path: Path, channel: str
) -> None:
    with Worker(tmp_path, redis_server.url, history_events=0) as worker:
        with open_stream(worker.url, channel) as stream:
            redis_server.client().publish(channel, "0")
            stream.next()
            last = stream.last_event_id
        with open_stream(worker.url, channel, headers={"Last-Event-ID": last}) as stream:
            redis_server.client().publish(channel, "1")
            assert stream.next().data == "1"
        with open_stream(worker.url, channel, headers={"Last-Event-ID": last}) as stream:
            assert _gap(stream.next().data) == (channel, "not_kept", last)


def test_durable_messages_have_ids_of_one_rising_clock(pair: Pair, channel: str) -> None:
    names = [channel, channel + "2"]
    with open_stream(pair.one.url, names[0]) as first, open_stream(pair.one.url, names[1]) as second:
        ids = [_durable(pair, names[number % 2], str(number)) for number in range(20)]
        got = []
        for number in range(20):
            stream = second if number % 2 else first
            assert stream.next().data == str(number)
            got.append(stream.last_event_id)
    assert got == ids
    numbers = [_number(id_) for id_ in ids]
    assert numbers == sorted(set(numbers))


def test_durable_messages_are_found_on_a_worker_that_never_heard_them(pair: Pair, channel: str) -> None:
    names = [channel, channel + "2"]
    with open_stream(pair.one.url, names) as stream:
        _durable(pair, names[0], "0")
        stream.next()
        last = stream.last_event_id
    for number in range(1, 8):
        _durable(pair, names[number % 2], str(number))
    with open_stream(pair.other.url, names, headers={"Last-Event-ID": last}) as stream:
        _durable(pair, names[0], "live")
        events = stream.take(8)
        assert {event.type for event in events} == {"message"}
        assert [event.data for event in events if event.data in "246"] == ["2", "4", "6"]
        assert [event.data for event in events if event.data in "1357"] == ["1", "3", "5", "7"]
        assert events[-1].data == "live"


def test_history_first(pair: Pair, channel: str) -> None:
    for number in range(5):
        _durable(pair, channel, str(number))
    for worker in (pair.one, pair.other):
        with open_stream(worker.url, channel, params=[("history", "3")]) as stream:
            assert [event.data for event in stream.take(3)] == ["2", "3", "4"]
    with open_stream(pair.one.url, channel) as stream:
        pair.redis.publish(channel, "plain")
        stream.next()
        with open_stream(pair.one.url, channel, params=[("history", "2")]) as late:
            assert [event.data for event in late.take(2)] == ["4", "plain"]


def test_trimmed_history_is_told_from_nothing_missed(redis_server: RedisServer, tmp_path: Path, channel: str) -> None:
    with (
        Worker(
            tmp_path, redis_server.url, durable_events=20, history_events=1, linger=0, durable_channels=f"{channel}*"
        ) as worker,
        httpx.Client() as client,
    ):
        ids = []
        for number in range(260):
            answer = client.post(f"{worker.url}/publish/{channel}?durable=1", content=str(number))
            ids.append(answer.json()["id"])
        kept = redis_server.client().xlen(f"gateway.stream:{channel}")
        assert 20 <= kept < 20 + 100  # it is trimmed in steps of stream-node-max-entries
        oldest = 260 - kept
        with open_stream(worker.url, channel, headers={"Last-Event-ID": ids[oldest - 1]}) as stream:
            # The last one that was removed was the last it saw: it has missed nothing.
            assert stream.next().data == str(oldest)
        with open_stream(worker.url, channel, headers={"Last-Event-ID": ids[oldest - 2]}) as stream:
            assert _gap(stream.next().data) == (channel, "trimmed", ids[oldest - 2])
            assert stream.next().data == str(oldest)
        other = channel + "-quiet"
        client.post(f"{worker.url}/publish/{other}?durable=1", content="x")
        with open_stream(worker.url, other, headers={"Last-Event-ID": ids[-1]}) as stream:
            assert stream.next().data == "x"


def test_lost_history_is_said(private_redis: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, private_redis.url, linger=0) as worker:
        before = httpx.post(f"{worker.url}/publish/a?durable=1", content="1").json()["id"]
        private_redis.client().flushall()
        with open_stream(worker.url, "a", headers={"Last-Event-ID": before}) as stream:
            assert _gap(stream.next().data) == ("a", "history_lost", before)
        wait_until(lambda: metric(worker, "channels") == 0, "forgotten")
        httpx.post(f"{worker.url}/publish/a?durable=1", content="2").raise_for_status()
        with open_stream(worker.url, "a", headers={"Last-Event-ID": before}) as stream:
            assert _gap(stream.next().data) == ("a", "history_lost", before)
            httpx.post(f"{worker.url}/publish/a?durable=1", content="3").raise_for_status()
            assert stream.next().data == "3", "it begins anew"


def test_ten_times_the_same_question_is_asked_of_redis_once(
    redis_server: RedisServer, tmp_path: Path, channel: str
) -> None:
    with (
        Worker(tmp_path, redis_server.url, linger=0, durable_channels=channel) as worker,
        ExitStack() as stack,
    ):
        ids = [
            httpx.post(f"{worker.url}/publish/{channel}?durable=1", content=str(number)).json()["id"]
            for number in range(10)
        ]
        for _ in range(10):
            stream = stack.enter_context(open_stream(worker.url, channel, headers={"Last-Event-ID": ids[3]}))
            assert [event.data for event in stream.take(6)] == list("456789")
        later = stack.enter_context(open_stream(worker.url, channel, headers={"Last-Event-ID": ids[7]}))
        assert [event.data for event in later.take(2)] == list("89")
        assert metric(worker, "history_reads_total") == 1


def test_redis_cli_fcall(pair: Pair, channel: str) -> None:
    port = pair.redis.connection_pool.connection_kwargs["port"]
    with open_stream(pair.one.url, channel) as stream:
        said = subprocess.run(
            ["redis-cli", "-p", str(port), "FCALL", "gateway_publish", "1", channel, "hello\nžluť"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        assert stream.next().data == "hello\nžluť"
        generation, tick, number = map(int, said.stdout.strip().strip('"').split("."))
        place = parse_place(stream.last_event_id)[1]
        assert place is not None
        assert (place.generation, place.tick, _number(stream.last_event_id)) == (generation, tick, number)


def test_a_durable_envelope(pair: Pair, channel: str) -> None:
    with open_stream(pair.one.url, channel) as stream:
        _durable(pair, channel, '{"event":"tick","data":{"n":12345678901234567890123}}')
        event = stream.next()
        assert (event.type, event.data) == ("tick", '{"n":12345678901234567890123}')
    answer = httpx.post(f"{pair.one.url}/publish/{channel}?durable=1", content='{"event":"","data":"","id":"7"}')
    assert answer.status_code == 400
    assert "its position is its id" in answer.json()["detail"]
    answer = httpx.post(f"{pair.one.url}/publish/{channel}", content="\x1egateway:1790000000123-0\nforged")
    assert answer.status_code == 400


def _number(id_: str) -> int:
    """The number of a durable message on a stream of its channel alone."""
    place = parse_place(id_)[1]
    assert place is not None
    [(number, _)] = place.since.values()
    return number


def _durable(pair: Pair, channel: str, message: str) -> str:
    answer = httpx.post(f"{pair.one.url}/publish/{channel}?durable=1", content=message)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])
