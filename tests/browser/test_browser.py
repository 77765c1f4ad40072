"""What a real browser's EventSource makes of what the gateway sends."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page

from testing.browser import CLOSED, CONNECTING, OPEN, Listener, chromium
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until

MEBIBYTE = 1_048_576
FORGED = ("x", "forged", "gateway.gap")
"""Types that the injection attempts below try to forge; every listener listens for them."""
TYPES = ("message", "price", "größe", *FORGED)

_numbers = itertools.count()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Worker]:
    with Worker(tmp_path_factory.mktemp("worker"), redis_server.url, allowed_patterns="b.*") as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as tab:
        yield tab


@pytest.fixture
def page(tab: Page, worker: Worker) -> Page:
    """A page on the gateway's own origin, with no stream open."""
    tab.goto(worker.url + "/healthz")
    return tab


@pytest.fixture
def channel() -> str:
    """A channel no other test used."""
    return f"b.{next(_numbers)}"


def _envelope(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _data(listener: Listener) -> set[str]:
    return {data for _, data, _ in listener.events}


# ANY as the id: no statement about it, because the gateway may give events ids of its own.
ANY = None
Expected = tuple[str, str, str | None]


def message(data: str) -> list[Expected]:
    return [("message", data, ANY)]


REFUSED: list[Expected] = []

PAYLOADS: dict[str, tuple[bytes, list[Expected]]] = {
    "text": (b"hello", message("hello")),
    "unicode": ("Grüße, 世界 🎉 \u202eעברית e\u0301".encode(), message("Grüße, 世界 🎉 \u202eעברית e\u0301")),
    "edges of unicode": (
        "\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff".encode(),
        message("\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff"),
    ),
    "empty": (b"", message("")),
    "LF": (b"one\ntwo", message("one\ntwo")),
    "CR": (b"one\rtwo", message("one\ntwo")),
    "CRLF": (b"one\r\ntwo", message("one\ntwo")),
    "LF CR is two": (b"one\n\rtwo", message("one\n\ntwo")),
    "mixed line ends": (b"\r\n\n\r\r\n", message("\n\n\n\n")),
    "LF only": (b"\n", message("\n")),
    "CR only": (b"\r", message("\n")),
    "CRLF only": (b"\r\n", message("\n")),
    "LF at the end": (b"one\n", message("one\n")),
    "CR at the end": (b"one\r", message("one\n")),
    "LF at the start": (b"\none", message("\none")),
    "blank lines": (b"one\n\n\ntwo", message("one\n\n\ntwo")),
    "no line ends of other trades": (
        "a\x0bb\x0cc\x85d\u2028e\u2029f".encode(),
        message("a\x0bb\x0cc\x85d\u2028e\u2029f"),
    ),
    "1 MiB": (b"x" * MEBIBYTE, message("x" * MEBIBYTE)),
    "1 MiB of two-byte characters": ("é".encode() * (MEBIBYTE // 2), message("é" * (MEBIBYTE // 2))),
    "1 MiB of lines": (b"abc\n" * (MEBIBYTE // 4), message("abc\n" * (MEBIBYTE // 4))),
    "1 MiB and a byte": (b"x" * (MEBIBYTE + 1), REFUSED),
    "leading space": (b" x", message(" x")),
    "leading spaces": (b"  x", message("  x")),
    "leading tab": (b"\tx", message("\tx")),
    "space only": (b" ", message(" ")),
    "leading colon": (b":x", message(":x")),
    "colon only": (b":", message(":")),
    "leading BOM": ("\ufeffx".encode(), message("\ufeffx")),
    "BOM only": ("\ufeff".encode(), message("\ufeff")),
    "NUL": (b"a\0b", message("a\0b")),
    "NUL only": (b"\0", message("\0")),
    "JSON object": (b'{"a": [1, 2]}', message('{"a": [1, 2]}')),
    "JSON array": (b'["event", "data"]', message('["event", "data"]')),
    "JSON string": (b'"hello"', message('"hello"')),
    "GraphQL answer": (b'{"data": {"a": 1}}', message('{"data": {"a": 1}}')),
    "not UTF-8": (b"\xff\xfe", REFUSED),
    "cut UTF-8": ("é".encode()[:1], REFUSED),
    "encoded surrogate": (b"\xed\xa0\x80", REFUSED),
    # Nothing a publisher sends as data can become a field or an event of its own.
    "injected event, LF": (b"\n\nevent: x\ndata: forged\n\n", message("\n\nevent: x\ndata: forged\n\n")),
    "injected event, CR": (b"\r\revent: x\rdata: forged\r\r", message("\n\nevent: x\ndata: forged\n\n")),
    "injected event, CRLF": (
        b"\r\n\r\nevent: x\r\ndata: forged\r\n\r\n",
        message("\n\nevent: x\ndata: forged\n\n"),
    ),
    "injected data": (b"\r\rdata: forged", message("\n\ndata: forged")),
    "injected type": (b"hello\nevent: forged", message("hello\nevent: forged")),
    "injected id": (b"hello\nid: forged", message("hello\nid: forged")),
    "injected retry": (b"hello\nretry: 86400000\n\n", message("hello\nretry: 86400000\n\n")),
    "field as data": (b"data: x", message("data: x")),
    "in-band event as data": (
        b"x\n\nevent: gateway.gap\ndata: {}\n\n",
        message("x\n\nevent: gateway.gap\ndata: {}\n\n"),
    ),
    "envelope": (_envelope(event="price", data="42"), [("price", "42", ANY)]),
    "envelope with an id": (_envelope(event="price", data="42", id="a-7"), [("price", "42", "a-7")]),
    "envelope, all fields": (
        _envelope(event="price", data="42", id="u~7", retry=5000, comment="from the market"),
        [("price", "42", "u~7")],
    ),
    "envelope, unicode type": (_envelope(event="größe", data="42"), [("größe", "42", ANY)]),
    "envelope, empty type": (_envelope(event="", data="42"), message("42")),
    "envelope, empty data": (_envelope(event="price", data=""), [("price", "", ANY)]),
    "envelope, id that is only a colon": (_envelope(event="price", data="", id=":"), [("price", "", ":")]),
    "envelope, id with spaces": (_envelope(event="price", data="", id=" : "), REFUSED),
    "envelope, id outside ASCII": (_envelope(event="price", data="", id="ü7"), REFUSED),
    "envelope, data as JSON": (
        _envelope(event="price", data={"a": [1, None], "é": "\n"}),
        [("price", '{"a":[1,null],"é":"\\n"}', ANY)],
    ),
    "envelope, data null": (_envelope(event="price", data=None), [("price", "null", ANY)]),
    "envelope, long number": (
        b'{"event": "price", "data": {"n": 123456789012345678901234567890}}',
        [("price", '{"n":123456789012345678901234567890}', ANY)],
    ),
    "envelope, data with line ends": (_envelope(event="price", data="a\r\nb\rc\nd"), [("price", "a\nb\nc\nd", ANY)]),
    "envelope, injection in data": (
        _envelope(event="price", data="1\n\nevent: x\ndata: forged\n\n"),
        [("price", "1\n\nevent: x\ndata: forged\n\n", ANY)],
    ),
    "envelope, injection in comment": (
        _envelope(event="price", data="1", comment="\n\nevent: x\ndata: forged\r\rdata: forged\n\n"),
        [("price", "1", ANY)],
    ),
    "envelope, injection in type": (_envelope(event="x\ndata: forged\n\n", data="1"), REFUSED),
    "envelope, CR in type": (_envelope(event="x\rdata: forged", data="1"), REFUSED),
    "envelope, injection in id": (_envelope(event="x", data="1", id="1\n\ndata: forged"), REFUSED),
    "envelope, NUL in id": (_envelope(event="x", data="1", id="1\0"), REFUSED),
    "envelope, type no string": (_envelope(event=1, data="1"), REFUSED),
    "envelope, id no string": (_envelope(event="x", data="1", id=1), REFUSED),
    "envelope, retry no number": (_envelope(event="x", data="1", retry="1\ndata: forged"), REFUSED),
    "envelope, comment no string": (_envelope(event="x", data="1", comment=1), REFUSED),
    "envelope, type of the gateway": (_envelope(event="gateway.gap", data="1"), REFUSED),
    "unknown key, so no envelope": (
        b'{"event": "x", "data": "1", "more": 1}',
        message('{"event": "x", "data": "1", "more": 1}'),
    ),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_payload_arrives_as_it_should_and_nothing_else_does(
    page: Page, publisher: redis.Redis, channel: str, case: str
) -> None:
    payload, expected = PAYLOADS[case]
    listener = Listener(page, f"/events?channel={channel}", TYPES)
    listener.wait_open()
    publisher.publish(channel, payload)
    publisher.publish(channel, "the end")
    wait_until(lambda: "the end" in _data(listener), "the end")
    *received, (last_type, _, _) = listener.events
    assert last_type == "message"
    assert [event[:2] for event in received] == [event[:2] for event in expected]
    for (_, _, id_), (_, _, expected_id) in zip(received, expected, strict=True):
        assert expected_id in (ANY, id_)
    assert listener.states_at_errors == []


def test_several_channels_come_by_one_stream(page: Page, publisher: redis.Redis, channel: str) -> None:
    other = channel + ".other"
    listener = Listener(page, f"/events?channel={channel}&channel={other}")
    listener.wait_open()
    for number in range(1, 5):
        for name in (channel, other, channel + ".unheard"):
            publisher.publish(name, f"{number} {name}")
    ends = {f"4 {channel}", f"4 {other}"}
    wait_until(lambda: ends <= _data(listener), "the last event of each")
    # Order is kept within a channel, not between channels.
    for name in (channel, other):
        assert [data for _, data, _ in listener.events if data.endswith(f" {name}")] == [
            f"{number} {name}" for number in range(1, 5)
        ]
    assert len(listener.events) == 8


def test_channel_as_type(page: Page, publisher: redis.Redis, channel: str) -> None:
    other = channel + ".other"
    listener = Listener(
        page, f"/events?channel={channel}&channel={other}&events=channel", ("message", "price", channel, other)
    )
    listener.wait_open()
    publisher.publish(channel, "1")
    publisher.publish(other, "2")
    publisher.publish(other, _envelope(event="price", data="3"))
    wait_until(lambda: len(listener.events) >= 3, "three events")
    assert {event[:2] for event in listener.events} == {(channel, "1"), (other, "2"), ("price", "3")}


def test_what_channel_and_pattern_both_match_comes_once(page: Page, publisher: redis.Redis, channel: str) -> None:
    listener = Listener(page, f"/events?channel={channel}.a&pattern={channel}.*")
    listener.wait_open()
    for name, data in ((".a", "a1"), (".b", "b1"), (".a", "a2"), (".b", "b2"), (".a", "a end"), (".b", "b end")):
        publisher.publish(channel + name, data)
    wait_until(lambda: {"a end", "b end"} <= _data(listener), "the last event of each")
    assert sorted(data for _, data, _ in listener.events) == ["a end", "a1", "a2", "b end", "b1", "b2"]


_PUBLISH_AT_ONOPEN = """async (channels) => {
  const firsts = [];
  for (const channel of channels) {
    const source = new EventSource(`/events?channel=${channel}`);
    const publish = (data) => fetch(`/publish/${channel}`, {method: "POST", body: data});
    firsts.push(await new Promise((resolve) => {
      source.onmessage = (event) => resolve(event.data);
      source.onopen = async () => {
        await publish("at onopen");
        // Were that one lost, one of these would arrive first, and the test fails without waiting for a timeout.
        while (source.readyState === EventSource.OPEN) {
          await new Promise((next) => setTimeout(next, 100));
          if (source.readyState === EventSource.OPEN) await publish("later");
        }
      };
    }));
    source.close();
  }
  return firsts;
}"""


def test_what_is_published_at_onopen_is_received(page: Page, channel: str) -> None:
    channels = [f"{channel}.fresh.{number}" for number in range(20)]
    assert page.evaluate(_PUBLISH_AT_ONOPEN, channels) == ["at onopen"] * 20


@pytest.mark.parametrize(
    "path",
    [
        "/events",
        "/events?channel=",
        "/events?channel=gateway.x",
        "/events?channel=a&pattern=*",
        "/events?channel=a&strict=1&nonsense=1",
        "/events?channel=a&events=nonsense",
        "/nothing",
    ],
)
def test_what_can_never_work_closes_the_source(page: Page, path: str) -> None:
    listener = Listener(page, path)
    wait_until(lambda: listener.states_at_errors, "an error")
    assert listener.state == CLOSED
    assert listener.states_at_errors == [CLOSED]
    assert listener.opened == 0


def test_last_event_id_is_sent_back_when_the_worker_returns(
    browser: Browser, tmp_path: Path, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    with (
        Worker(tmp_path, redis_server.url, retry_min=0.05, retry_max=0.1, drain_window=0) as worker,
        browser.new_page() as page,
    ):
        page.goto(worker.url + "/healthz")
        with page.expect_request("**/events?*") as first:
            listener = Listener(page, f"/events?channel={channel}", ("message", "price", "gateway.closing"))
        listener.wait_open()
        publisher.publish(channel, _envelope(event="price", data="1", id="a-7"))
        wait_until(lambda: listener.events == [("price", "1", "a-7")], "the event")

        with page.expect_request_finished(
            lambda request: "/events" in request.url and "last-event-id" in request.all_headers(), timeout=20_000
        ) as again:
            worker.stop()
            worker.start()
            wait_until(lambda: listener.opened == 2, "open again")
            worker.stop()  # a request of an EventSource is finished when its stream has ended
        worker.start()
        wait_until(lambda: listener.opened == 3, "open once more")

        assert "last-event-id" not in first.value.all_headers()
        assert [type_ for type_, _, _ in listener.events] == ["price", "gateway.closing", "gateway.closing"]
        # With gateway.closing comes the place on all channels, after what the publisher gave the id to.
        assert again.value.all_headers()["last-event-id"] == listener.ids[1] != "a-7"
        publisher.publish(channel, "2")
        wait_until(lambda: listener.events[-1][:2] == ("message", "2"), "an event after the restarts")
        assert CLOSED not in listener.states_at_errors


def test_killed_worker_does_not_close_the_source(
    browser: Browser, tmp_path: Path, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    with (
        Worker(tmp_path, redis_server.url, retry_min=0.05, retry_max=0.1) as worker,
        browser.new_page() as page,
    ):
        page.goto(worker.url + "/healthz")
        listener = Listener(page, f"/events?channel={channel}")
        listener.wait_open()
        worker.kill()
        wait_until(lambda: len(listener.states_at_errors) >= 2, "it tried again in vain")
        assert listener.state == CONNECTING
        worker.start()
        wait_until(lambda: listener.opened == 2, "open again")
        publisher.publish(channel, "1")
        wait_until(lambda: listener.events, "an event")
        assert CLOSED not in listener.states_at_errors


def test_full_worker_does_not_close_the_source(
    browser: Browser, tmp_path: Path, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    with (
        Worker(tmp_path, redis_server.url, max_streams=1, retry_busy=0.1) as worker,
        browser.new_page() as page,
    ):
        page.goto(worker.url + "/healthz")
        first = Listener(page, f"/events?channel={channel}")
        first.wait_open()
        second = Listener(page, f"/events?channel={channel}")
        wait_until(lambda: len(second.states_at_errors) >= 2, "turned away twice")
        assert first.state == OPEN
        first.close()
        wait_until(lambda: publisher.publish(channel, "1") and second.events, "an event for the second")
        assert CLOSED not in second.states_at_errors


def test_redis_away_does_not_close_the_source(browser: Browser, tmp_path: Path, channel: str) -> None:
    with (
        RedisServer(tmp_path) as server,
        Worker(tmp_path, server.url, subscribe_timeout=0.1, retry_busy=0.1, redis_backoff_max=0.1) as worker,
        browser.new_page() as page,
        server.client() as publisher,
    ):
        page.goto(worker.url + "/healthz")
        before = Listener(page, f"/events?channel={channel}.before")
        wait_until(lambda: publisher.publish(channel + ".before", "1") and before.events, "an event on the stream")
        errors = before.states_at_errors  # on a busy machine it may have been turned away at first
        server.kill()
        during = Listener(page, f"/events?channel={channel}")
        wait_until(lambda: len(during.states_at_errors) >= 2, "turned away twice")
        server.start()
        wait_until(lambda: publisher.publish(channel, "1") and during.events, "an event after Redis' return")
        wait_until(
            lambda: publisher.publish(channel + ".before", "2") and "2" in _data(before), "an event on the old stream"
        )
        assert CLOSED not in during.states_at_errors
        assert before.states_at_errors == errors
