"""What a publisher sends is what a client gets: the same on every delivery path, server and Redis."""

import json
import re
import socket
from typing import NamedTuple

import httpx
import pytest
import redis

from testing.stacks import Stack
from testing.stream import Received, open_stream
from testing.waiting import wait_until

_POSITION = r"2\.[0-9a-f]+\.[0-9a-f]+(\.[\w-]{8}:[0-9a-f]+)*"


class Case(NamedTuple):
    payload: str | bytes
    expected: Received


def _envelope(**fields: object) -> str:
    return json.dumps(fields)


CASES = {
    "plain": Case("hello", Received("hello")),
    "empty": Case("", Received("")),
    "unicode": Case("žluťoučký kůň 🐎 \u2028\u2029\x85", Received("žluťoučký kůň 🐎 \u2028\u2029\x85")),
    "lf": Case("a\nb", Received("a\nb")),
    "cr": Case("a\rb", Received("a\nb")),
    "crlf": Case("a\r\nb", Received("a\nb")),
    "mixed line ends": Case("a\r\n\rb\n\r\nc", Received("a\n\nb\n\nc")),
    "line end last": Case("a\n", Received("a\n")),
    "only line ends": Case("\n\r\n\r", Received("\n\n\n")),
    "leading space": Case("  a", Received("  a")),
    "colon": Case(": a", Received(": a")),
    "byte order mark": Case("\ufeffa", Received("\ufeffa")),
    "nul": Case("a\0b", Received("a\0b")),
    "control characters": Case("\x01\x1b[31m\x7f", Received("\x01\x1b[31m\x7f")),
    "looks like a field": Case("event: x", Received("event: x")),
    "injected event": Case("a\n\nevent: x\ndata: forged", Received("a\n\nevent: x\ndata: forged")),
    "injected by cr": Case("a\r\revent: x\rdata: forged", Received("a\n\nevent: x\ndata: forged")),
    "injected id": Case("a\nid: 1\nretry: 1", Received("a\nid: 1\nretry: 1")),
    "injected chunk": Case("\r\n0\r\n\r\n", Received("\n0\n\n")),
    "json": Case('{"a": [1, "ž"]}', Received('{"a": [1, "ž"]}')),
    "json string": Case('"x"', Received('"x"')),
    "json with data only": Case('{"data": {"user": 1}}', Received('{"data": {"user": 1}}')),
    "json with event only": Case('{"event": "x"}', Received('{"event": "x"}')),
    "json with an unknown key": Case(
        '{"event":"x","data":"y","extra":1}', Received('{"event":"x","data":"y","extra":1}')
    ),
    "array of envelopes": Case('[{"event":"x","data":"y"}]', Received('[{"event":"x","data":"y"}]')),
    "broken json": Case('{"event":"x","data":"y"', Received('{"event":"x","data":"y"')),
    "envelope": Case(_envelope(event="tick", data="1"), Received("1", "tick")),
    "envelope with spaces around": Case(' \n{"event":"tick","data":"1"}\n', Received("1", "tick")),
    "envelope with escaped keys": Case('{"\\u0065vent":"tick","d\\u0061ta":"1"}', Received("1", "tick")),
    "envelope without a type": Case(_envelope(event="", data="1"), Received("1")),
    "envelope with an object": Case(
        _envelope(event="tick", data={"a": [1, None, True], "ž": 1.5}),
        Received('{"a":[1,null,true],"ž":1.5}', "tick"),
    ),
    "envelope with a long number": Case(
        '{"event":"tick","data":{"n":123456789012345678901234567890,"f":1.10}}',
        Received('{"n":123456789012345678901234567890,"f":1.10}', "tick"),
    ),
    "envelope with null": Case(_envelope(event="tick", data=None), Received("null", "tick")),
    "envelope with false": Case(_envelope(event="tick", data=False), Received("false", "tick")),
    "envelope with empty data": Case(_envelope(event="tick", data=""), Received("", "tick")),
    "envelope with lines": Case(_envelope(event="tick", data="a\r\nb\rc"), Received("a\nb\nc", "tick")),
    "envelope with a comment": Case(_envelope(event="t", data="1", comment="a\n\ndata: forged"), Received("1", "t")),
    "envelope with everything": Case(
        _envelope(event="tick", data="1", id="v~7", retry=2000, comment="c"), Received("1", "tick", "v~7")
    ),
    "1 MiB": Case("x" * 1_048_576, Received("x" * 1_048_576)),
    "1 MiB of lines": Case("ab\n" * 349_525, Received("ab\n" * 349_525)),
}

REFUSED = {
    "not UTF-8": (b"a\xff", "not_utf8"),
    "half a character": ("ž".encode()[:1], "not_utf8"),
    "an encoded surrogate": (b"\xed\xa0\x80", "not_utf8"),
    "too large": (b"x" * 1_048_577, "too_large"),
    "event is a number": (_envelope(event=1, data=""), "bad_envelope"),
    "event is null": (_envelope(event=None, data=""), "bad_envelope"),
    "event with LF": (_envelope(event="a\nb", data=""), "bad_envelope"),
    "event with CR": (_envelope(event="a\rb", data=""), "bad_envelope"),
    "event with NUL": (_envelope(event="a\0b", data=""), "bad_envelope"),
    "event of the gateway": (_envelope(event="gateway.gap", data=""), "bad_envelope"),
    "event too long": (_envelope(event="x" * 257, data=""), "bad_envelope"),
    "id is a number": (_envelope(event="e", data="", id=7), "bad_envelope"),
    "id is an object": (_envelope(event="e", data="", id={}), "bad_envelope"),
    "id with LF": (_envelope(event="e", data="", id="1\n2"), "bad_envelope"),
    "id with CR": (_envelope(event="e", data="", id="1\r2"), "bad_envelope"),
    "id with NUL": (_envelope(event="e", data="", id="1\x002"), "bad_envelope"),
    "id with a space": (_envelope(event="e", data="", id="a b"), "bad_envelope"),
    "id outside ASCII": (_envelope(event="e", data="", id="ž-7"), "bad_envelope"),
    "id with DEL": (_envelope(event="e", data="", id="a\x7f"), "bad_envelope"),
    "id like the gateway's": (_envelope(event="e", data="", id="2.1a.2b"), "bad_envelope"),
    "id that ends like the gateway's": (_envelope(event="e", data="", id="7~2.1a.2b.CeJIPLv7:1"), "bad_envelope"),
    "id too long": (_envelope(event="e", data="", id="x" * 257), "bad_envelope"),
    "retry is a string": (_envelope(event="e", data="", retry="10"), "bad_envelope"),
    "retry is a fraction": (_envelope(event="e", data="", retry=1.5), "bad_envelope"),
    "retry is true": (_envelope(event="e", data="", retry=True), "bad_envelope"),
    "retry is negative": (_envelope(event="e", data="", retry=-1), "bad_envelope"),
    "retry is a week": (_envelope(event="e", data="", retry=7 * 86_400_000), "bad_envelope"),
    "comment is a list": (_envelope(event="e", data="", comment=[]), "bad_envelope"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_payload_arrives_as_it_was_meant(stack: Stack, channel: str, case: Case) -> None:
    with open_stream(stack.url, channel) as stream:
        stack.publish(channel, case.payload)
        stack.publish(channel, "after")
        got, after = stream.take(2)
    assert got == case.expected
    assert after.data == "after", "the event after it was harmed"


@pytest.mark.parametrize(("payload", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_delivered_is_refused_counted_and_costs_nothing_else(
    stack: Stack, channel: str, payload: str | bytes, reason: str
) -> None:
    counter = f'gateway_refused_messages_total{{reason="{reason}"}}'
    before = _metric(stack, counter)
    with open_stream(stack.url, channel) as stream:
        stack.publish(channel, "before")
        stack.publish(channel, payload)
        stack.publish(channel, "after")
        assert [event.data for event in stream.take(2)] == ["before", "after"]
    assert _metric(stack, counter) == before + 1


def test_order_is_kept_and_every_event_comes_once(stack: Stack, channel: str) -> None:
    count = 2000
    with open_stream(stack.url, channel) as first, open_stream(stack.url, channel) as second:
        expected = [str(number) for number in range(count)]
        _publish_many(stack, channel, expected)
        for stream in (first, second):
            assert [event.data for event in stream.take(len(expected))] == expected


def test_several_channels_on_one_stream(stack: Stack, channel: str) -> None:
    names = [f"{channel}-{suffix}" for suffix in ("a", "b/c", "d e", "ž", "%2F", "*[x]?")]
    with open_stream(stack.url, names) as stream:
        for name in names:
            stack.publish(name, f"to {name}")
        assert [event.data for event in stream.take(len(names))] == [f"to {name}" for name in names]


def test_an_event_of_a_channel_and_matching_patterns_comes_once(stack: Stack, channel: str) -> None:
    patterns = [("pattern", f"{channel}*"), ("pattern", f"{channel[:-1]}?"), ("channel", channel)]
    with (
        open_stream(stack.url, params=patterns) as everything,
        open_stream(stack.url, params=patterns[:1]) as one_pattern,
        open_stream(stack.url, params=patterns[:2]) as two_patterns,
        open_stream(stack.url, channel) as one_channel,
    ):
        # The same payload several times: repetitions must not be taken for copies.
        _publish_many(stack, channel, ["same"] * 5)
        stack.publish(channel + "-other", "other")
        stack.publish(channel, "last")
        for stream in (everything, one_pattern):
            assert [event.data for event in stream.take(7)] == ["same"] * 5 + ["other", "last"]
        assert [event.data for event in two_patterns.take(7)] == ["same"] * 5 + ["other", "last"]
        assert [event.data for event in one_channel.take(6)] == ["same"] * 5 + ["last"]


def test_a_channel_named_twice_is_one(stack: Stack, channel: str) -> None:
    with open_stream(stack.url, [channel, channel]) as stream:
        stack.publish(channel, "1")
        stack.publish(channel, "2")
        assert [event.data for event in stream.take(2)] == ["1", "2"]


def test_events_can_take_their_channels_name_as_type(stack: Stack, channel: str) -> None:
    with (
        open_stream(stack.url, channel, params=[("events", "channel")]) as named,
        open_stream(stack.url, channel) as plain,
    ):
        stack.publish(channel, "1")
        stack.publish(channel, _envelope(event="own", data="2"))
        assert named.take(2) == [Received("1", channel), Received("2", "own")]
        assert plain.take(2) == [Received("1"), Received("2", "own")]


def test_short_form_and_post(stack: Stack, channel: str) -> None:
    name = channel + "/ä"
    body = {"channels": [name]}
    with (
        open_stream(f"{stack.url}/events/{channel}%2F%C3%A4") as short,
        open_stream(stack.url, method="POST", json=body) as posted,
    ):
        stack.publish(name, "1")
        assert short.next().data == posted.next().data == "1"


def test_the_first_event_is_gateway_open_with_a_random_retry_and_an_id(stack: Stack, channel: str) -> None:
    retries = set()
    for _ in range(5):
        with open_stream(stack.url, channel, params=[("pattern", channel + ".*")]) as stream:
            stack.publish(channel, json.dumps({"event": "e", "data": "x", "id": "1"}))
            assert stream.next().id == "1"
            assert [json.loads(data) for data in stream.opened] == [
                {"channels": [channel], "patterns": [channel + ".*"]}
            ]
            assert re.fullmatch(_POSITION, stream.ids[0])
            assert re.fullmatch("1~" + _POSITION, stream.ids[1])
            assert stream.retry is not None
            assert 1000 <= stream.retry <= 3000
            retries.add(stream.retry)
    assert len(retries) > 1


def test_what_is_published_right_after_the_head_is_heard(stack: Stack, channel: str) -> None:
    for number in range(20):
        name = f"{channel}-{number}"
        with open_stream(stack.url, name) as stream:
            stack.publish(name, "at once")
            assert stream.next().data == "at once"


def test_the_heads_fields(stack: Stack, channel: str) -> None:
    with open_stream(stack.url, channel) as stream:
        headers = stream.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"


def test_head_answers_without_a_stream(stack: Stack, channel: str) -> None:
    before = _metric(stack, "gateway_streams_opened_total")
    with httpx.Client(timeout=10) as client:
        for _ in range(2):  # the connection stays usable
            answer = client.head(f"{stack.url}/events", params={"channel": channel})
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.content == b""
    assert _metric(stack, "gateway_streams_opened_total") == before


def test_options_names_the_methods(stack: Stack) -> None:
    answer = httpx.options(f"{stack.url}/events")
    assert answer.status_code == 204
    assert {method.strip() for method in answer.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS", "POST"}


def test_a_disconnect_frees_everything_at_once(stack: Stack, channel: str) -> None:
    with open_stream(stack.url, channel):
        wait_until(lambda: _metric(stack, "gateway_streams") == 1, "nobody else is left")
        assert _subscribed(stack, channel)
    wait_until(lambda: _metric(stack, "gateway_streams") == 0, "the stream forgotten")
    wait_until(lambda: not _subscribed(stack, channel), "the channel given up after lingering")


def test_a_client_that_sends_bytes_on_its_stream_is_not_harmed(stack: Stack, channel: str) -> None:
    if stack.form.server != "gateway":
        pytest.skip("other servers end such a connection, which is their right")
    with _raw(stack, f"GET /events?channel={channel} HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        _read_until(connection, b"data: ")
        if stack.form.delivery == "direct":
            connection.sendall(b"garbage\r\n\r\n" * 1000)
        stack.publish(channel, "still there")
        _read_until(connection, b"data: still there\n\n")


def test_requests_pipelined_behind_a_stream_are_let_go(stack: Stack, channel: str) -> None:
    if stack.form.server != "gateway":
        pytest.skip("about the direct path's server")
    get = f"GET /events?channel={channel} HTTP/1.1\r\nHost: x\r\n\r\n"
    with _raw(stack, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + get + get + get) as connection:
        _read_until(connection, b"retry: ")
        stack.publish(channel, "still there")
        _read_until(connection, b"data: still there\n\n")
        wait_until(lambda: _metric(stack, "gateway_streams") == 1, "nobody else is left")
    wait_until(lambda: _metric(stack, "gateway_streams") == 0, "the stream forgotten")


def test_http_1_0_gets_a_stream_without_chunks(stack: Stack, channel: str) -> None:
    with _raw(stack, f"GET /events?channel={channel} HTTP/1.0\r\n\r\n") as connection:
        answer = _read_until(connection, b"retry: ")
        stack.publish(channel, "x")
        answer += _read_until(connection, b"data: x\n\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    position = body.partition(b"\n")[0].removeprefix(b"id: ")
    opened = b'id: %b\nevent: gateway.open\nretry: \\d+\ndata: {"channels":\\["%b"\\]}\n\n'
    assert re.fullmatch(_POSITION, position.decode())
    assert re.fullmatch(opened % (re.escape(position), channel.encode()) + rb"id: \S+:1\ndata: x\n\n", body), body


def test_a_request_body_on_get_is_ignored(stack: Stack, channel: str) -> None:
    with open_stream(stack.url, channel, content=b"x" * 100_000) as stream:
        stack.publish(channel, "1")
        assert stream.next().data == "1"


def _metric(stack: Stack, name: str) -> float:
    for line in httpx.get(f"{stack.url}/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


def _subscribed(stack: Stack, channel: str) -> bool:
    return stack.publish(channel, "is anybody there?") > 0


def _publish_many(stack: Stack, channel: str, payloads: list[str]) -> None:
    with redis.Redis.from_url(stack.redis_url) as client, client.pipeline(transaction=False) as pipeline:
        for payload in payloads:
            pipeline.publish(channel, payload)
        pipeline.execute()


def _raw(stack: Stack, request: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", stack.worker.port), timeout=20)
    connection.sendall(request.encode())
    return connection


def _read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = connection.recv(65536)
        assert piece, f"ended after {data!r}"
        data += piece
    return data
