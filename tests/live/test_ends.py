"""Channels that are over: their streams end, and their clients needn't come back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import pytest
import redis

from gateway.broker.embedded import EmbeddedRedis
from testing.http import metric
from testing.process import free_port
from testing.servers import RedisServer, Worker
from testing.stacks import Form, start_worker
from testing.stream import Received, open_stream
from testing.transient import transient
from testing.waiting import wait_until


class Pair(NamedTuple):
    """Two workers on one Redis."""

    one: Worker
    other: Worker
    redis: redis.Redis
    url: str
    embedded: bool

    def durable(self, channel: str, *texts: str) -> None:
        for text in texts:
            answer = httpx.post(f"{self.one.url}/publish/{channel}?durable=1", content=text)
            assert answer.status_code == 200, answer.text

    def end(self, channel: str) -> str:
        answer = httpx.post(f"{self.one.url}/publish/{channel}?end=1")
        assert answer.status_code == 200, answer.text
        id_: str = answer.json()["end"]
        return id_


@pytest.fixture(scope="module", params=["direct-redis", "portable-redis", "direct-embedded", "portable-embedded"])
def pair(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    delivery, _, kind = request.param.partition("-")
    directory = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        url = redis_server.url
        if kind == "embedded":
            url = stack.enter_context(EmbeddedRedis(free_port())).url
        settings: dict[str, Any] = {"delivery": delivery, "allowed_patterns": "*", "channel_prefix": "ends:"}
        one, other = (stack.enter_context(Worker(directory, url, **settings)) for _ in range(2))
        yield Pair(one, other, stack.enter_context(redis.Redis.from_url(url)), url, kind == "embedded")


def ended(channel: str) -> Received:
    return Received(json.dumps({"channel": channel}, separators=(",", ":")), "gateway.ended")


def status(worker: Worker, channel: str, last_event_id: str = "", **params: str) -> int:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with httpx.stream(
        "GET", f"{worker.url}/events", params={"channel": channel, **params}, headers=headers
    ) as answer:
        return answer.status_code


def texts(events: list[Received]) -> list[str]:
    return [event.data if event.type == "message" else event.type for event in events]


@pytest.mark.parametrize("way", ["HTTP", "HTTP with a message", "command", "FCALL"])
def test_its_streams_end_on_all_workers_and_are_not_wanted_again(pair: Pair, channel: str, way: str) -> None:
    if way == "FCALL" and pair.embedded:
        pytest.skip("fakeredis has no functions")
    sent = ["1", "2"]
    with open_stream(pair.one.url, channel) as one, open_stream(pair.other.url, channel) as other:
        pair.durable(channel, *sent)
        if way == "command":
            command = [sys.executable, "-m", "gateway", "end", channel, "--redis-url", pair.url]
            done = subprocess.run(
                [*command, "--channel-prefix", "ends:"], capture_output=True, text=True, check=True, timeout=30
            )
            assert f"{channel} is over" in done.stdout
        elif way == "FCALL":
            pair.redis.fcall("gateway_end", 1, f"ends:{channel}")
        elif way == "HTTP":
            assert httpx.post(f"{pair.one.url}/publish/{channel}?end=1").json().keys() == {"channel", "end"}
        else:
            answer = httpx.post(f"{pair.one.url}/publish/{channel}?end=1", content="3")
            assert answer.json().keys() == {"channel", "id", "end"}
            sent.append("3")
        for stream in (one, other):
            assert texts(stream.rest()) == [*sent, "gateway.ended"]
            assert stream.ids[-1] != stream.ids[-2], "its end has an id of its own"
    for worker in (pair.one, pair.other):
        assert status(worker, channel, one.last_event_id) == 204
        assert status(worker, channel) == 204, "nothing is to come"
        assert status(worker, channel, new=channel) == 204


def test_a_new_client_gets_what_is_kept_and_then_the_end(pair: Pair, channel: str) -> None:
    pair.durable(channel, "1", "2", "3")
    pair.end(channel)
    for worker in (pair.one, pair.other):
        for history, expected in (("2", ["2", "3"]), ("3", ["1", "2", "3"]), ("10", ["1", "2", "3"])):
            with open_stream(worker.url, channel, params=[("history", history)]) as stream:
                assert texts(stream.rest()) == [*expected, "gateway.ended"]
                assert len(stream.opened) == 1
            assert status(worker, channel, stream.last_event_id, history=history) == 204


def test_who_was_away_gets_what_was_missed_and_then_the_end(pair: Pair, channel: str) -> None:
    with open_stream(pair.one.url, channel) as away, open_stream(pair.other.url, channel):
        pair.durable(channel, "1")
        away.next()
    with open_stream(pair.one.url, channel):
        pair.durable(channel, "2")
        pair.redis.publish(f"ends:{channel}", "plain")
        pair.end(channel)
    for worker in (pair.one, pair.other):
        with open_stream(worker.url, channel, headers={"Last-Event-ID": away.last_event_id}) as back:
            assert texts(back.rest()) == ["2", "plain", "gateway.ended"]
        assert status(worker, channel, back.last_event_id) == 204
        for id_ in back.ids[:-2]:
            with open_stream(worker.url, channel, headers={"Last-Event-ID": id_}) as again:
                assert texts(again.rest())[-1] == "gateway.ended"


def test_a_stream_ends_with_the_last_of_its_channels(pair: Pair, channel: str) -> None:
    a, b, c = (f"{channel}{letter}" for letter in "abc")
    with open_stream(pair.one.url, [a, b]) as two, open_stream(pair.other.url, [a, b, c]) as three:
        pair.end(a)
        pair.durable(b, "1")
        assert two.take(2) == [ended(a), Received("1")]
        assert texts(three.take(2)) == ["gateway.ended", "1"]
        assert status(pair.one, a) == 204
        with open_stream(pair.one.url, [a, b]) as late:
            pair.durable(b, "2")
            assert texts(late.take(2)) == ["gateway.ended", "2"], "it learns that one is over"
            pair.end(b)
            assert texts(late.rest()) == ["gateway.ended"]
        assert texts(two.rest()) == ["2", "gateway.ended"]
        pair.durable(c, "3")
        assert texts(three.take(3)) == ["2", "gateway.ended", "3"]
    params = {"channel": [a, b]}
    assert httpx.get(f"{pair.other.url}/events", params=params).status_code == 204
    answer = httpx.get(f"{pair.one.url}/events", params=params, headers={"Last-Event-ID": two.last_event_id})
    assert answer.status_code == 204


def test_what_is_published_again_opens_it_again(pair: Pair, channel: str) -> None:
    first = pair.end(channel)
    assert pair.end(channel) == first, "the second time does nothing"
    assert status(pair.one, channel) == 204
    pair.redis.publish(f"ends:{channel}", "plain")
    assert status(pair.one, channel) == 204, "nobody but Redis' functions can say otherwise"
    pair.durable(channel, "1")
    assert [status(worker, channel) for worker in (pair.one, pair.other)] == [200, 200]
    with (
        open_stream(pair.one.url, channel, params=[("history", "1")]) as one,
        open_stream(pair.other.url, channel, headers={"Last-Event-ID": first}) as back,
    ):
        assert texts(one.take(1)) == ["1"]
        assert "gateway.ended" not in texts(back.take(1))
        assert pair.end(channel) != first
        assert texts(one.rest()) == ["gateway.ended"]
        assert texts(back.rest())[-1] == "gateway.ended"
    assert status(pair.other, channel, back.last_event_id) == 204


def test_nobody_is_told_that_it_is_over_when_it_is_not_any_more(pair: Pair, channel: str) -> None:
    """A worker may not have heard yet what was published a moment ago; but nobody comes back after 204."""
    last = ""
    with open_stream(pair.one.url, [channel, f"{channel}x"]), open_stream(pair.other.url, [channel, f"{channel}x"]):
        for number in range(20):
            last = pair.end(channel)
            pair.durable(channel, str(number))
            for worker in (pair.other, pair.one):
                with open_stream(worker.url, channel, headers={"Last-Event-ID": last}) as stream:
                    assert texts(stream.take(1)) == [str(number)]


def test_clients_that_cannot_stop_at_204(pair: Pair, channel: str) -> None:
    pair.durable(channel, "1")
    pair.end(channel)
    for worker in (pair.one, pair.other):
        with open_stream(worker.url, channel, params=[("end", "abort")]) as stream:
            assert stream.rest() == [ended(channel)]
        headers = {"Last-Event-ID": stream.last_event_id}
        with open_stream(worker.url, channel, params=[("end", "abort")], headers=headers) as stream:
            assert stream.rest() == [ended(channel)]
        with open_stream(worker.url, method="POST", json={"channels": [channel], "end": "abort"}) as stream:
            assert stream.rest() == [ended(channel)]
        assert status(worker, channel, end="break") == 400
        assert httpx.post(f"{worker.url}/events", json={"channels": [channel], "end": 1}).status_code == 400


def test_streams_of_patterns_are_told_and_go_on(pair: Pair, channel: str) -> None:
    with (
        open_stream(pair.one.url, params=[("pattern", f"{channel}*")]) as pattern,
        open_stream(pair.other.url, [f"{channel}.a"], params=[("pattern", f"{channel}*")]) as both,
    ):
        pair.end(f"{channel}.a")
        pair.durable(f"{channel}.b", "1")
        for stream in (pattern, both):
            assert stream.take(2) == [ended(f"{channel}.a"), Received("1")]


def test_nobody_else_can_end_a_channel(pair: Pair, channel: str) -> None:
    name = f"ends:{channel}"
    with open_stream(pair.one.url, channel) as stream:
        for forged in (
            b"\x1egateway:end", b"\x1egateway:10000000000001-99\n\x1egateway:end",
            b"\x1egateway:10000000000001-99 0123456789abcdef0123\n\x1egateway:end", b"\x1egateway:endless",
            b'{"event": "gateway.ended", "data": {"channel": "x"}}',
        ):  # fmt: skip
            pair.redis.publish(name, forged)
            if not pair.embedded and forged.startswith(b"\x1e"):
                with pytest.raises(redis.ResponseError):
                    pair.redis.fcall("gateway_publish", 1, name, forged)
            answer = httpx.post(f"{pair.one.url}/publish/{channel}?durable=1", content=forged)
            assert answer.status_code == 400
        pair.redis.publish(name, "still open")
        assert stream.next().data == "still open"
    assert status(pair.one, channel) == 200
    assert httpx.post(f"{pair.one.url}/publish/{channel}?end=2").status_code == 400
    assert httpx.post(f"{pair.one.url}/publish/gateway.x?end=1").status_code == 400
    if not pair.embedded:
        for arguments in ([], [name, "more"], ["gateway.x"], [""], ["a\nb"]):
            with pytest.raises(redis.ResponseError):
                pair.redis.fcall("gateway_end", min(len(arguments), 1), *arguments)


def test_a_crowd_ends_as_one_does(pair: Pair, channel: str) -> None:
    def listen(worker: Worker) -> list[str]:
        with open_stream(worker.url, channel) as stream:
            return texts(stream.rest())

    with ThreadPoolExecutor(120) as pool:
        waiting = [pool.submit(listen, worker) for worker in (pair.one, pair.other) for _ in range(60)]
        wait_until(lambda: sum(metric(each, "streams") for each in (pair.one, pair.other)) >= 120, "all listen")
        pair.durable(channel, "1")
        pair.end(channel)
        assert [each.result(30) for each in waiting] == [["1", "gateway.ended"]] * 120
    assert metric(pair.one, "streams_closed_total", reason="ended") >= 60


def test_who_reads_slowly_gets_everything_and_then_the_end(redis_server: RedisServer, tmp_path: Path) -> None:
    with (
        Worker(tmp_path, redis_server.url, queue_events=10_000, queue_bytes=100_000_000) as worker,
        open_stream(worker.url, "slow") as stream,
    ):
        for number in range(200):
            content = f"{number} {'x' * 50_000}"
            assert httpx.post(f"{worker.url}/publish/slow?durable=1", content=content).status_code == 200
        httpx.post(f"{worker.url}/publish/slow?end=1")
        wait_until(lambda: metric(worker, "streams") == 0, "the worker has ended it")
        events = stream.rest()
        assert [event.data.partition(" ")[0] for event in events[:-1]] == [str(number) for number in range(200)]
        assert events[-1] == ended("slow")


def test_it_takes_a_grant_to_publish(redis_server: RedisServer, tmp_path: Path) -> None:
    secret = "a secret that is long enough for anybody"
    with Worker(tmp_path, redis_server.url, jwt_secret=secret, public_channels="*") as worker:

        def end(**claim: Any) -> int:
            headers = {"Authorization": f"Bearer {jwt.encode({'gateway': claim}, secret, 'HS256')}"}
            return httpx.post(f"{worker.url}/publish/guarded?end=1", headers=headers).status_code

        assert httpx.post(f"{worker.url}/publish/guarded?end=1").status_code == 401
        assert end(subscribe=["*"]) == 403
        assert status(worker, "guarded") == 200
        assert end(publish=["guarded"]) == 200
        assert status(worker, "guarded") == 204


def test_it_is_forgotten_after_a_while(redis_server: RedisServer, tmp_path: Path, channel: str) -> None:
    with Worker(tmp_path, redis_server.url, end_age=1, linger=0) as worker:
        httpx.post(f"{worker.url}/publish/{channel}?end=1")
        assert redis_server.client().pttl(f"gateway.end:{channel}") <= 1000
        wait_until(lambda: status(worker, channel) == 200, "nobody knows any more")


def test_a_redis_that_may_not_tell(private_redis: RedisServer, tmp_path: Path) -> None:
    """Streams stay open then, as they did before channels could end."""
    with Worker(tmp_path, private_redis.limited_url(without=["mget"])) as worker:
        with open_stream(worker.url, "news") as stream:
            private_redis.client().publish("news", "hello")
            assert stream.next().data == "hello"
        worker.wait_for_output("whether channels are over can't be read")


def test_a_redis_that_is_away(private_redis: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, private_redis.url, subscribe_timeout=0.5) as worker:
        httpx.post(f"{worker.url}/publish/news?end=1")
        assert status(worker, "news") == 204
        private_redis.stop()
        answer = httpx.get(f"{worker.url}/events?channel=news")
        assert (answer.status_code, transient(answer.text).reason) == (200, "redis_away")


@pytest.fixture(params=["direct", "portable", "hypercorn", "granian"])
def torn(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    """A worker that ends its streams after a moment, and takes one of each address."""
    form = Form("portable", request.param) if request.param in ("hypercorn", "granian") else Form(request.param)
    with start_worker(form, tmp_path, redis_server.url, max_age=2, address_streams=1) as worker:
        yield worker


def test_an_end_that_means_come_back_is_seen_as_one(torn: Worker, channel: str) -> None:
    """Some clients take a clean end for the last one: fetch-event-source, and the AI SDK."""
    for asked in ({}, {"end": "abort"}):
        lines: list[str] = []
        with (
            pytest.raises(httpx.RemoteProtocolError) if asked else nullcontext(),
            httpx.stream("GET", f"{torn.url}/events", params={"channel": channel, **asked}) as answer,
        ):
            busy: list[str] = []
            with (
                pytest.raises(httpx.RemoteProtocolError) if asked else nullcontext(),
                httpx.stream("GET", f"{torn.url}/events", params={"channel": channel, **asked}) as second,
            ):
                busy += second.iter_lines()
            assert "event: gateway.closing" in busy, "it is told, too"
            lines += answer.iter_lines()
        assert "event: gateway.closing" in lines
        wait_until(lambda: metric(torn, "streams") == 0, "it is forgotten")


def test_an_end_is_clean_also_for_them(torn: Worker, channel: str) -> None:
    with httpx.stream("GET", f"{torn.url}/events", params={"channel": channel, "end": "abort"}) as answer:
        httpx.post(f"{torn.url}/publish/{channel}?end=1")
        assert "event: gateway.ended" in list(answer.iter_lines())
    wait_until(lambda: metric(torn, "streams") == 0, "it is forgotten")
    answer = httpx.get(f"{torn.url}/events", params={"channel": channel, "end": "abort"})
    assert answer.text.endswith(f"event: gateway.ended\ndata: {ended(channel).data}\n\n")
