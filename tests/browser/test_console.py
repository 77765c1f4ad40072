"""The console page, in a real browser, over a real gateway."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis
from playwright.sync_api import Browser, Page, Request, Route, expect

from gateway import console
from testing.browser import chromium
from testing.servers import RedisServer, Worker
from testing.waiting import DEADLINE, wait_until

KEPT_ROWS = 500

_numbers = itertools.count()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Worker]:
    with Worker(
        tmp_path_factory.mktemp("worker"),
        redis_server.url,
        console=True,
        allowed_patterns="c.*",
        ping_interval=0.5,
    ) as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def channel() -> str:
    """A channel no other test used."""
    return f"c.{next(_numbers)}"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; at the end nothing may have gone wrong in it."""
    faults: list[str] = []
    with browser.new_page() as fresh:
        fresh.set_default_timeout(DEADLINE * 1000)
        fresh.on("pageerror", lambda error: faults.append(str(error)))
        fresh.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        yield fresh
    # Chromium writes an error for every answer that isn't 2xx and every refused connection; those are on purpose.
    assert [fault for fault in faults if not fault.startswith("Failed to load resource")] == []


def _open(page: Page, worker: Worker, *channels: str, more: str = "") -> None:
    page.goto(f"{worker.url}/#{'&'.join(f'channel={name}' for name in channels)}{more}")
    expect_state(page, "Open")


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#state")).to_have_text(state)


def _events(page: Page) -> Any:
    """The rows of events, the newest first."""
    return page.locator("#rows > .event")


def _answer_with(page: Page, **answer: Any) -> None:
    """Answer the page's requests for a stream instead of the gateway."""
    page.route("**/events?*", lambda route: route.fulfill(**answer))


def test_how_to_call_redis_cli_is_told_and_escaped(page: Page) -> None:
    page.route(
        "**/*", lambda route: route.fulfill(body=console.page('redis-cli -p 6380 "<&'), content_type="text/html")
    )
    page.goto("http://console.test/#none=")
    expect(page.locator("#lines code").first).to_have_text('redis-cli -p 6380 "<& PUBLISH news hello')


def test_policy_is_in_force(browser: Browser, worker: Worker) -> None:
    with browser.new_page() as page:
        answer = page.goto(worker.url)
        assert answer is not None
        assert answer.headers["content-security-policy"] == console.content_security_policy()
        page.evaluate("""() => {
          window.violations = [];
          addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.forged = true";
          document.body.append(script);
        }""")
        wait_until(lambda: page.evaluate("violations.length"), "a violation")
        assert page.evaluate("window.forged") is None


# ---- The parser -------------------------------------------------------------------------------------------------

Parsed = list[tuple[str, str, str]]


def message(data: str, id_: str = "") -> Parsed:
    return [("message", data, id_)]


# In the manner of the Web Platform Tests' eventsource/format-* files. Events are (type, data, id of that event).
STREAMS: dict[str, tuple[bytes, Parsed]] = {
    "LF": (b"data: a\n\n", message("a")),
    "CR": (b"data: a\r\r", message("a")),
    "CRLF": (b"data: a\r\n\r\n", message("a")),
    "all line ends": (b"data: a\rdata: b\r\ndata: c\n\r\n", message("a\nb\nc")),
    "LF CR": (b"data: a\n\rdata: b\n\n", [*message("a"), *message("b")]),
    "two events by CR": (b"data: a\r\rdata: b\r\r", [*message("a"), *message("b")]),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n", message("a")),
    "second BOM": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "BOM later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", message("a")),
    "BOM in data": (b"data: \xef\xbb\xbfa\n\n", message("\ufeffa")),
    "UTF-8": ("data: é世🎉\n\n".encode(), message("é世🎉")),
    "broken UTF-8": (b"data: \xe2\x82|\xff\n\n", message("\ufffd|\ufffd")),
    "one space is left out": (b"data:  a\n\ndata:b\n\n", [*message(" a"), *message("b")]),
    "tab stays": (b"data:\ta\n\n", message("\ta")),
    "colon in data": (b"data: :a: b\n\n", message(":a: b")),
    "no colon": (b"data\n\ndata\ndata\n\n", [*message(""), *message("\n")]),
    "empty data": (b"data:\n\n", message("")),
    "no data": (b"event: x\nid: 1\n\n", []),
    "type is forgotten without data": (b"event: x\n\ndata: a\n\n", message("a")),
    "type": (b"event: x\ndata: a\n\ndata: b\n\n", [("x", "a", ""), *message("b")]),
    "last type wins": (b"event: x\nevent: y\ndata: a\n\n", [("y", "a", "")]),
    "empty type": (b"event: x\nevent:\ndata: a\n\n", message("a")),
    "type with spaces": (b"event:  x \ndata: a\n\n", [(" x ", "a", "")]),
    "id": (b"id: 1\ndata: a\n\ndata: b\n\n", [*message("a", "1"), *message("b")]),
    "id with NUL": (b"id: 1\nid: 2\0\ndata: a\n\n", message("a", "1")),
    "NUL in data": (b"data: a\0b\n\n", message("a\0b")),
    "comments": (b":\n: a\n:data: x\ndata: a\n:\n\n", message("a")),
    "unknown fields": (b"datax: a\nDATA: a\n data: a\ndata : a\nfoo\ndata: b\n\n", message("b")),
    "retry": (b"retry: 1000\nretry: 1x\nretry:\nretry: -1\nretry: 1.5\ndata: a\n\n", message("a")),
    "cut off": (b"data: a\n\ndata: b\n", message("a")),
    "cut off in a line": (b"data: a\n\ndata: b", message("a")),
    "blank lines": (b"\n\n\r\r\r\n\r\ndata: a\n\n\n\n", message("a")),
    "long line": (b"data: " + b"x" * 5000 + b"\n\n", message("x" * 5000)),
}

_PARSE = """([bytes, sizes]) => {
  const seen = {events: [], retries: [], comments: []};
  const parser = new SseParser("", {
    event: (type, data, id) => seen.events.push([type, data, id]),
    retry: (milliseconds) => seen.retries.push(milliseconds),
    comment: (text) => seen.comments.push(text),
  });
  const decoder = new TextDecoder();
  let at = 0;
  for (const size of sizes) {
    parser.feed(decoder.decode(Uint8Array.from(bytes.slice(at, at + size)), {stream: true}));
    at += size;
  }
  seen.lastEventId = parser.lastEventId;
  return seen;
}"""


@pytest.fixture(scope="module")
def parse(browser: Browser, worker: Worker) -> Iterator[Callable[[bytes, list[int]], dict[str, Any]]]:
    """The page's parser: bytes, and how long the pieces are in which they come."""
    with browser.new_page() as page:
        page.goto(worker.url + "/#none=")
        yield lambda stream, sizes: page.evaluate(_PARSE, [list(stream), sizes])


@pytest.mark.parametrize("case", STREAMS)
def test_stream_is_parsed_wherever_it_is_cut(parse: Callable[[bytes, list[int]], dict[str, Any]], case: str) -> None:
    stream, expected = STREAMS[case]
    cuts = range(len(stream) + 1) if len(stream) < 200 else (0, 3, 100, len(stream) - 1)
    ways = [[cut, len(stream) - cut] for cut in cuts] + [[1] * len(stream)]
    for sizes in ways:
        seen = parse(stream, sizes)
        assert [tuple(event) for event in seen["events"]] == expected, sizes


def test_retry_comments_and_last_id(parse: Callable[[bytes, list[int]], dict[str, Any]]) -> None:
    stream, _ = STREAMS["retry"]
    assert parse(stream, [len(stream)])["retries"] == [1000]
    assert parse(b":\n: a\n", [6])["comments"] == ["", " a"]
    # An id counts once its event is complete, data or not; one cut off does not.
    assert parse(b"id: 1\n\nid: 2\n", [13])["lastEventId"] == "1"
    assert parse(b"id: 1\ndata: a\n\nid\ndata: b\n\n", [28])["lastEventId"] == ""


# ---- Listening --------------------------------------------------------------------------------------------------


def test_listens_to_news_at_once(page: Page, worker: Worker, publisher: redis.Redis) -> None:
    page.goto(worker.url)
    expect_state(page, "Open")
    expect(page.locator("#empty")).to_contain_text("redis-cli PUBLISH news hello")
    assert page.url.endswith("#channel=news")
    publisher.publish("news", "hello")
    row = _events(page)
    expect(row.locator(".preview")).to_have_text("hello")
    expect(row.locator(".channel")).to_have_text("news")
    expect(row.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#count")).to_have_text("1")


def test_types_nobody_expected_are_shown(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, json.dumps({"event": "order.created", "id": "a-7", "data": {"n": 1}}))
    row = _events(page)
    expect(row.locator(".type")).to_have_text("order.created")
    expect(row.locator(".id")).to_have_text("a-7")
    expect(row.locator(".preview")).to_have_text('{"n":1}')


def test_newest_is_first(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    for number in range(5):
        publisher.publish(channel, str(number))
    expect(_events(page).locator(".preview")).to_have_text(["4", "3", "2", "1", "0"])


def test_payloads_are_never_markup(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    attack = '<img src=x onerror="window.forged = true"><script>window.forged = true</script>'
    _open(page, worker, channel, more="&view=full")
    publisher.publish(channel, attack)
    id_ = attack.replace(" ", "/")  # for browsers it is the same
    publisher.publish(channel, json.dumps({"event": attack, "data": {attack: [attack]}, "id": id_}))
    publisher.publish(channel, json.dumps({attack: attack}))
    expect(_events(page)).to_have_count(3)
    expect(_events(page).last.locator("pre")).to_have_text(attack)
    expect(_events(page).nth(1).locator(".type")).to_have_text(attack)
    expect(_events(page).nth(1).locator(".id")).to_have_text(id_)
    assert page.locator("#rows :is(img, script)").count() == 0
    assert page.evaluate("window.forged") is None


def test_channel_names_are_never_markup(page: Page, worker: Worker) -> None:
    name = "<img src=x onerror='window.forged = true'>"
    page.goto(worker.url)
    page.get_by_label("Channel or pattern to add").fill(name)
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#chips .mono")).to_have_text(["news", name])
    expect_state(page, "Open")
    assert page.locator("img").count() == 0
    assert page.evaluate("window.forged") is None


def test_json_is_printed_pretty_and_keeps_its_digits(
    page: Page, worker: Worker, publisher: redis.Redis, channel: str
) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, '{"n":12345678901234567890,"x":1.50,"s":"a, [b]: \\"{}\\"","l":[true,null,[],{}]}')
    publisher.publish(channel, '{"broken": ')
    publisher.publish(channel, " [1] ")
    expect(_events(page)).to_have_count(3)
    for row in range(3):
        _events(page).nth(row).locator("summary").click()
    expect(_events(page).nth(0).locator("pre")).to_have_text("[\n  1\n]", use_inner_text=True)
    expect(_events(page).nth(1).locator("pre")).to_have_text('{"broken": ')
    assert _events(page).nth(2).locator("pre").text_content() == (
        '{\n  "n": 12345678901234567890,\n  "x": 1.50,\n  "s": "a, [b]: \\"{}\\"",\n'
        '  "l": [\n    true,\n    null,\n    [],\n    {}\n  ]\n}'
    )


def test_what_cannot_be_seen_is_shown(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, b"a\r\nb\tc\0d\x1be")
    publisher.publish(channel, b"")
    expect(_events(page).locator(".preview")).to_have_text(["empty", r"a\nb\tc\0d\x1be"])


def test_a_large_event_is_cut_in_the_page(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, "x" * 1_048_576)
    _events(page).locator("summary").click()
    expect(_events(page).locator(".about")).to_contain_text("First 100,000 of 1,048,576 characters")
    assert len(_events(page).locator("pre").text_content()) == 100_000


def test_several_channels_and_a_pattern(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    other = channel + ".other"
    _open(page, worker, channel, other, more=f"&pattern={channel}.p*")
    for name in (channel, other, channel + ".pattern"):
        publisher.publish(name, f"to {name}")
        expect(_events(page).first.locator(".preview")).to_have_text(f"to {name}")
    expect(_events(page).locator(".channel")).to_have_text(["", other, channel])
    # By a pattern the channel comes as the type: whether it is one the publisher chose cannot be told.
    expect(_events(page).locator(".type")).to_have_text([channel + ".pattern", "message", "message"])


def test_many_events_leave_a_bounded_page(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    for start in range(0, 5000, 100):
        with publisher.pipeline(transaction=False) as pipeline:
            for number in range(start, start + 100):
                pipeline.publish(channel, json.dumps({"number": number}))
            pipeline.execute()
    expect(page.locator("#count")).to_have_text("5,000")
    expect(_events(page).first.locator(".preview")).to_have_text('{"number": 4999}')
    expect(_events(page)).to_have_count(KEPT_ROWS)
    assert page.evaluate("records.length") == KEPT_ROWS


def test_many_events_while_paused_leave_a_bounded_page(
    page: Page, worker: Worker, publisher: redis.Redis, channel: str
) -> None:
    _open(page, worker, channel)
    page.get_by_role("button", name="Pause").click()
    for start in range(0, 3000, 100):
        with publisher.pipeline(transaction=False) as pipeline:
            for number in range(start, start + 100):
                pipeline.publish(channel, f"{number}")
            pipeline.execute()
    expect(page.locator("#count")).to_have_text("3,000")
    assert page.evaluate("records.length") <= 2 * KEPT_ROWS
    page.locator("#pause").click()
    expect(_events(page)).to_have_count(KEPT_ROWS)
    expect(_events(page).first.locator(".preview")).to_have_text("2999")


def test_large_events_leave_a_bounded_page(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    for number in range(40):
        publisher.publish(channel, f"{number}".ljust(1_048_576, "x"))
        expect(page.locator("#count")).to_have_text(f"{number + 1}")
    assert page.evaluate("records.reduce((sum, record) => sum + record.data.length, 0)") <= 16_000_000
    expect(_events(page)).to_have_count(15)
    expect(_events(page).first.locator(".preview")).to_have_text(re.compile("^39x"))


def test_pings_are_heard(page: Page, worker: Worker, channel: str) -> None:
    _open(page, worker, channel)
    wait_until(lambda: int(page.locator("#aside").get_attribute("data-pings") or 0) >= 2, "two pings")
    expect(page.locator("#heard")).to_have_text("heard just now")
    assert _events(page).count() == 0


# ---- What is shown ----------------------------------------------------------------------------------------------


def test_pause_keeps_what_comes_for_later(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, "before")
    expect(_events(page)).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    publisher.publish(channel, "while")
    resume = page.get_by_role("button", name="Resume (1 new)")
    expect(resume).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#count")).to_have_text("2")
    expect(_events(page).locator(".preview")).to_have_text(["before"])
    page.get_by_label("Show only events that contain this").fill("e")
    expect(_events(page).locator(".preview")).to_have_text(["before"])
    resume.click()
    expect(_events(page).locator(".preview")).to_have_text(["while", "before"])


def test_filter_shows_what_contains_it(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, "Apple")
    publisher.publish(channel, json.dumps({"event": "apple", "data": "1"}))
    publisher.publish(channel, json.dumps({"event": "pear", "data": "2", "id": "no-apple"}))
    publisher.publish(channel, "pear")
    expect(_events(page)).to_have_count(4)
    field = page.get_by_label("Show only events that contain this")
    field.fill("APPLE")
    expect(_events(page)).to_have_count(3)
    expect(page.locator("#shown")).to_have_text("3 of 4")
    publisher.publish(channel, "late pear")
    publisher.publish(channel, "late apple")
    expect(_events(page)).to_have_count(4)
    expect(page.locator("#shown")).to_have_text("4 of 6")
    assert "filter=APPLE" in page.url
    field.fill("nothing holds this")
    expect(page.locator("#empty")).to_contain_text("No event contains that")
    field.fill("")
    expect(_events(page)).to_have_count(6)


def test_clear_forgets(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, "1")
    expect(_events(page)).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    expect(_events(page)).to_have_count(0)
    expect(page.locator("#count")).to_have_text("0")
    publisher.publish(channel, "2")
    expect(_events(page).locator(".preview")).to_have_text(["2"])


def test_gateways_own_events_stand_out(page: Page, worker: Worker) -> None:
    gap = {"channel": "news", "reason": "redis away", "since": "2026-11-20T22:41:07Z"}
    body = "".join(
        f"event: {type_}\ndata: {data}\n\n"
        for type_, data in (
            ("gateway.gap", json.dumps(gap)),
            ("gateway.open", json.dumps({"channels": ["news"]})),
            ("gateway.expiring", "{}"),
            ("gateway.closing", ""),
            ("gateway.new", "[1]"),
        )
    )
    _answer_with(page, content_type="text/event-stream", body="retry: 3600000\n\n" + body)
    page.goto(worker.url)
    rows = page.locator("#rows > .inband")
    expect(rows.locator(".type")).to_have_text(["gateway.new", "gateway.closing", "gateway.expiring", "gateway.gap"])
    expect(rows.last).to_contain_text("Events were or may have been missed: channel news, reason redis away")
    expect(page.locator("#count")).to_have_text("0")
    rows.last.locator("summary").click()
    assert json.loads(rows.last.locator("pre").text_content()) == gap


# ---- The connection ---------------------------------------------------------------------------------------------


def test_refusal_is_shown_and_final(page: Page, worker: Worker) -> None:
    page.goto(worker.url + "/#channel=gateway.x")
    expect_state(page, "Closed")
    expect(page.locator("#banner")).to_contain_text("400 Bad Request: channel 'gateway.x': names that begin with")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.get_by_role("button", name="Remove channel gateway.x").click()
    expect(page.get_by_role("button", name="Connect", exact=True)).to_be_disabled()
    assert requests == []
    page.get_by_label("Channel or pattern to add").fill("news")
    page.keyboard.press("Enter")
    expect_state(page, "Open")
    expect(page.locator("#banner")).to_be_empty()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 204}, "204: the server says this stream is over."),
        ({"status": 502, "body": "<h1>Bad Gateway</h1>", "content_type": "text/html"}, "502 Bad Gateway."),
        ({"status": 401, "body": "who are you", "content_type": "text/plain"}, "401 who are you."),
        ({"status": 200, "body": "hello", "content_type": "text/html"}, "200, but not an event stream (text/html)."),
        (
            {"status": 403, "body": '{"title": "No", "detail": "Ask."}', "content_type": "application/problem+json"},
            "403 No: Ask. An EventSource gives up here.",
        ),
    ],
)  # fmt: skip
def test_what_an_eventsource_gives_up_on_closes(
    page: Page, worker: Worker, answer: dict[str, Any], reason: str
) -> None:
    _answer_with(page, **answer)
    page.goto(worker.url)
    expect_state(page, "Closed")
    expect(page.locator("#banner")).to_contain_text(reason)
    page.unroute("**/events?*")
    page.get_by_role("button", name="Connect", exact=True).click()
    expect_state(page, "Open")


def test_transient_answer_does_not_close(page: Page, worker: Worker, publisher: redis.Redis) -> None:
    closing = 'event: gateway.closing\nretry: 10\ndata: {"reason":"%s"}\n\n'
    answers = iter([closing % "draining", closing % "full", "", "data: last\n\nid: lost"])

    def answer(route: Route) -> None:
        body = next(answers, None)
        if body is None:
            route.continue_()
        else:
            route.fulfill(content_type="text/event-stream", body=body)

    page.route("**/events?*", answer)
    page.goto(worker.url)
    wait_until(lambda: publisher.publish("news", "hello") and _events(page).count() >= 2, "an event of the gateway")
    expect(page.locator(".mark", has_text="The server ended the stream (draining).")).to_have_count(1)
    expect(page.locator(".mark", has_text="The server ended the stream (full).")).to_have_count(1)
    expect(page.locator("#rows > .inband")).to_have_count(0)
    expect_state(page, "Open")


def test_comes_back_after_a_restart_with_its_last_id(
    page: Page, tmp_path: Path, redis_server: RedisServer, publisher: redis.Redis, channel: str
) -> None:
    with Worker(tmp_path, redis_server.url, console=True, retry_min=0.05, retry_max=0.1, drain_window=0) as worker:
        asked: list[Request] = []
        page.on("request", lambda request: asked.append(request) if "/events?" in request.url else None)
        _open(page, worker, channel)
        publisher.publish(channel, json.dumps({"event": "x", "data": "1", "id": "a-7"}))
        expect(_events(page)).to_have_count(1)
        worker.stop()
        expect_state(page, "Reconnecting")
        expect(page.locator("#heard")).to_contain_text("The gateway can't be reached.")
        expect(page.locator("#rows > .inband .type")).to_have_text("gateway.closing")
        left_at = page.locator("#rows > .inband .id").text_content()
        worker.start()
        expect_state(page, "Open")
        publisher.publish(channel, "2")
        expect(_events(page).first.locator(".preview")).to_have_text("2")
        assert "last-event-id" not in asked[0].headers
        assert len(asked) > 2
        assert {request.headers["last-event-id"] for request in asked[1:]} == {left_at}


def test_disconnect_and_connect(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    page.get_by_role("button", name="Disconnect").click()
    expect_state(page, "Closed")
    expect(page.locator("#banner")).to_be_empty()
    wait_until(lambda: _open_streams(worker) == 0, "the gateway saw it go")
    page.get_by_role("button", name="Connect", exact=True).click()
    expect_state(page, "Open")
    publisher.publish(channel, "1")
    expect(_events(page)).to_have_count(1)


def _open_streams(worker: Worker) -> int:
    with urlopen(worker.url + "/metrics", timeout=DEADLINE) as answer:
        (count,) = re.findall(r"^gateway_streams (\d+)", answer.read().decode(), re.MULTILINE)
    return int(count)


def test_address_holds_the_state(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    other = f"{channel}.ü & #1"
    _open(page, worker, channel)
    name = page.get_by_label("Channel or pattern to add")
    name.fill(other)
    name.press("Enter")
    name.fill(channel + ".p*")
    expect(page.get_by_label("What it is")).to_have_value("pattern")
    name.press("Enter")
    page.get_by_role("button", name="Expand").click()
    expect_state(page, "Open")
    page.reload()
    expect_state(page, "Open")
    expect(page.locator("#chips .mono")).to_have_text([channel, other, channel + ".p*"])
    expect(page.get_by_role("button", name="Expand")).to_have_attribute("aria-pressed", "true")
    publisher.publish(other, "1")
    expect(_events(page).locator("pre")).to_have_text("1")
    page.get_by_role("button", name=f"Remove channel {other}").click()
    page.get_by_role("button", name=f"Remove pattern {channel}.p*").click()
    assert page.url.endswith(f"#channel={channel}&view=full")
    page.evaluate("location.hash = 'channel=by.hand'")
    expect(page.locator("#chips .mono")).to_have_text(["by.hand"])
    expect(page.locator("#request")).to_have_text("GET /events?channel=by.hand")
    expect_state(page, "Open")


def test_query_is_a_link_too(page: Page, worker: Worker, channel: str) -> None:
    page.goto(f"{worker.url}/?channel={channel}")
    expect(page.locator("#request")).to_have_text(f"GET /events?channel={channel}")
    expect_state(page, "Open")


# ---- Publishing -------------------------------------------------------------------------------------------------


def test_publishes_and_times_it(page: Page, worker: Worker, channel: str) -> None:
    _open(page, worker, channel)
    page.get_by_label("Data").fill("line 1\nline 2")
    page.get_by_label("Data").press("Control+Enter")
    expect(page.locator("#outcome")).to_have_text("Published to 1 subscriber at Redis")
    expect(_events(page).locator(".preview")).to_have_text([r"line 1\nline 2"])
    expect(_events(page).locator(".latency")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    expect(page.locator("#latency")).to_have_text(re.compile(r"^[\d.]+ m?s$"))


def test_publishes_type_and_id(page: Page, worker: Worker, channel: str) -> None:
    _open(page, worker, channel, channel + ".other")
    form = page.locator("#publish")
    form.get_by_label("Channel").fill(channel + ".other")
    form.get_by_label("Data").fill('{"event": "not an envelope"}')
    form.get_by_label("Id").fill("7")
    form.get_by_role("button", name="Publish").click()
    expect(_events(page)).to_have_count(1)
    form.get_by_label("Event type").fill("order")
    form.get_by_role("button", name="Publish").click()
    expect(_events(page)).to_have_count(2)
    expect(_events(page).locator(".type")).to_have_text(["order", "message"])
    # On a stream of several channels the position follows the publisher's id.
    expect(_events(page).locator(".id")).to_have_text([re.compile(r"^7~2\.")] * 2)
    expect(_events(page).locator(".channel")).to_have_text([channel + ".other"] * 2)
    expect(_events(page).locator(".preview")).to_have_text(['{"event": "not an envelope"}'] * 2)
    expect(_events(page).locator(".latency")).to_have_count(2)


def test_unheard_channel_is_told(page: Page, worker: Worker, channel: str) -> None:
    _open(page, worker, channel)
    page.locator("#publish").get_by_label("Channel").fill(channel + "/ü?.unheard")
    page.locator("#publish").get_by_role("button", name="Publish").click()
    expect(page.locator("#outcome")).to_have_text("Published, but nobody listens to this channel")


def test_refused_publish_says_what_to_do(page: Page, tmp_path: Path, redis_server: RedisServer, channel: str) -> None:
    with Worker(tmp_path, redis_server.url, console=True, http_publish=False) as worker:
        _open(page, worker, channel)
        page.locator("#publish").get_by_role("button", name="Publish").click()
        expect(page.locator("#outcome")).to_contain_text("403 Forbidden: Publishing over HTTP is off.")
        expect(page.locator("#outcome")).to_contain_text("GATEWAY_HTTP_PUBLISH")


def test_lines_for_several_channels_name_them(page: Page, worker: Worker) -> None:
    _open(page, worker, "a", "b")
    expect(page.locator("#lines code").last).to_contain_text("events=channel")
    expect(page.locator("#lines code").last).to_contain_text('for (const name of ["a","b"])')
    _open(page, worker, "a", more="&pattern=c.*")
    expect(page.locator("#lines code").last).to_contain_text(".onmessage =")


def test_lines_to_copy(page: Page, worker: Worker) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _open(page, worker, "it's")
    lines = page.locator("#lines code")
    expect(lines).to_have_text(
        [
            r"redis-cli PUBLISH 'it'\''s' hello",
            rf"curl -d hello '{worker.url}/publish/it'\''s'",
            f"curl -N '{worker.url}/events?channel=it%27s'",
            f'new EventSource("{worker.url}/events?channel=it%27s").onmessage = (event) => console.log(event.data);',
        ]
    )
    page.get_by_role("button", name="Copy: Publish", exact=True).click()
    wait_until(
        lambda: page.evaluate("navigator.clipboard.readText()") == r"redis-cli PUBLISH 'it'\''s' hello",
        "the line in the clipboard",
    )


# ---- For everybody ----------------------------------------------------------------------------------------------


def test_keyboard_is_enough(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel)
    publisher.publish(channel, '{"a": 1}')
    expect(_events(page)).to_have_count(1)
    reached: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if page.evaluate("document.activeElement.matches('#rows summary')"):
            break
    assert {"toggle", "name", "kind", "to", "data", "type", "id", "filter", "full", "pause", "clear"} <= {*reached}
    page.keyboard.press("Enter")
    expect(_events(page).locator("pre")).to_be_visible()


def test_every_control_has_a_name(page: Page, worker: Worker, publisher: redis.Redis, channel: str) -> None:
    _open(page, worker, channel, more="&view=full")
    publisher.publish(channel, "1")
    expect(_events(page)).to_have_count(1)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea")]
      .filter((control) => !(control.labels?.length || control.ariaLabel || control.innerText))
      .map((control) => control.outerHTML)""")
    assert nameless == []
    live = page.locator("[aria-live], [role=status], [role=alert], [role=log], output")
    assert {element.get_attribute("id") or element.get_attribute("class") for element in live.all()} == {
        "status", "banner", "outcome",
    }  # fmt: skip


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out(page: Page, worker: Worker, publisher: redis.Redis, channel: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    _open(page, worker, channel, channel + "." + "x" * 100, more="&view=full")
    publisher.publish(channel, "x" * 1000)
    publisher.publish(channel, json.dumps({"event": "y" * 200, "id": "z" * 200, "data": {"k" * 100: ["v" * 300]}}))
    expect(_events(page)).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth"
    )


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_follows_the_colour_scheme(page: Page, worker: Worker, scheme: Any, dark: bool) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(worker.url)
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue < 3 * 128) is dark
