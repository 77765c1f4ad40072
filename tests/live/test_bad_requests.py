"""Bad input is answered with what was wrong, and harms nobody else."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from testing.servers import RedisServer, Worker
from testing.stream import open_stream

LONG = "x" * 257


@pytest.fixture(scope="module")
def strict(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with small limits and without anything that is off by default."""
    with Worker(
        tmp_path_factory.mktemp("strict"),
        redis_server.url,
        http_publish=False,
        max_stream_channels=5,
        max_request_bytes=1024,
        allowed_patterns=["news.*", "a?c"],
    ) as running:
        yield running


STREAMS = {
    "no channel": ("/events", 400, "at least one channel"),
    "empty short form": ("/events/", 400, "the channel is empty"),
    "empty name": ("/events?channel=", 400, "the channel is empty"),
    "long name": (f"/events?channel={LONG}", 400, "257 bytes long; at most 256"),
    "long name in bytes": ("/events?channel=" + "%C5%BE" * 129, 400, "258 bytes long"),
    "control character": ("/events?channel=a%0Ab", 400, "U+000A"),
    "nul": ("/events?channel=a%00b", 400, "U+0000"),
    "del": ("/events?channel=a%7F", 400, "U+007F"),
    "line separator": ("/events?channel=%E2%80%A8", 400, "U+2028"),
    "not UTF-8": ("/events?channel=%FF", 400, "not UTF-8"),
    "short form not UTF-8": ("/events/%FF", 400, "not UTF-8"),
    "short form ends in a line feed": ("/events/a%0A", 400, "U+000A"),
    "encoded surrogate": ("/events?channel=%ED%A0%80", 400, "not UTF-8"),
    "reserved": ("/events?channel=gateway.canary", 400, "the gateway's own"),
    "reserved short form": ("/events/gateway.x", 400, "the gateway's own"),
    "too many": (
        "/events?" + "&".join(f"channel=c{n}" for n in range(6)),
        400,
        "6 channels and patterns are too many",
    ),
    "unknown parameter": ("/events?channel=a&chanel=b&strict=1", 400, "no parameter 'chanel'"),
    "unknown parameter of the short form": ("/events/a?strict=1&_=17", 400, "no parameter '_'"),
    "unknown parameter without a name": ("/events/a?strict=1&=17", 400, "no parameter ''"),
    "strictness of another kind": ("/events?channel=a&strict=yes", 400, "strict='yes' is not known"),
    "parameter twice": ("/events?channel=a&events=channel&events=channel", 400, "events stands twice"),
    "unknown value": ("/events?channel=a&events=type", 400, "the only value is 'channel'"),
    "long id": (f"/events?channel=a&last_event_id={LONG * 9}", 400, "longer than 2304 bytes"),
    "pattern not allowed": ("/events?pattern=*", 403, "not allowed here"),
    "pattern beyond its prefix": ("/events?pattern=new*", 403, "not allowed here"),
    "pattern like an allowed one": ("/events?pattern=a*c", 403, "not allowed here"),
    "empty pattern": ("/events?pattern=", 400, "the pattern is empty"),
}


@pytest.mark.parametrize(("path", "status", "words"), STREAMS.values(), ids=STREAMS)
def test_a_stream_that_cannot_be(strict: Worker, path: str, status: int, words: str) -> None:
    _assert_problem(httpx.get(strict.url + path), status, words)
    _assert_problem_head(httpx.head(strict.url + path), status)


@pytest.mark.parametrize("pattern", ["news.*", "news.eu.*", "news.[ab]?", "a?c"])
def test_allowed_patterns_are_allowed(strict: Worker, pattern: str) -> None:
    with open_stream(strict.url, params=[("pattern", pattern)]):
        pass


BODIES: dict[str, tuple[bytes, int, str]] = {
    "no body": (b"", 400, "no JSON"),
    "no JSON": (b"channels=a", 400, "no JSON"),
    "not UTF-8": (b'{"channels":["\xff"]}', 400, "no JSON"),
    "an array": (b'["a"]', 400, "must be a JSON object"),
    "no channels": (b"{}", 400, "at least one channel"),
    "channels is a string": (b'{"channels":"a"}', 400, "channels must be an array of strings"),
    "a channel is a number": (b'{"channels":[1]}', 400, "channels must be an array of strings"),
    "id is a number": (b'{"channels":["a"],"last_event_id":1}', 400, "last_event_id must be a string"),
    "reserved": (b'{"channels":["gateway.x"]}', 400, "the gateway's own"),
    "too many": (json.dumps({"channels": list("abcdef")}).encode(), 400, "too many"),
    "too large": (json.dumps({"channels": ["x" * 1024]}).encode(), 413, "max_request_bytes"),
}


@pytest.mark.parametrize(("body", "status", "words"), BODIES.values(), ids=BODIES)
def test_a_stream_by_post_that_cannot_be(strict: Worker, body: bytes, status: int, words: str) -> None:
    _assert_problem(httpx.post(f"{strict.url}/events", content=body), status, words)


def test_a_body_without_a_length_is_limited_too(strict: Worker) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 1000

    try:
        answer = httpx.post(f"{strict.url}/events", content=endless())
    except httpx.TransportError:
        return  # the answer was sent and the connection closed while the body was still being sent
    _assert_problem(answer, 413, "max_request_bytes")


def test_post_takes_its_parameters_in_the_body(strict: Worker) -> None:
    answer = httpx.post(f"{strict.url}/events?channel=a", json={"channels": ["a"]})
    _assert_problem(answer, 400, "in its JSON body")


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("strict=1&_=17", {"channels": ["a"]}, "no parameter '_'"),
        ("_=17&strict=1", {"channels": ["a"]}, "no parameter '_'"),
        ("strict=1", {"channels": ["a"], "channel": "b"}, "no member 'channel'"),
        ("strict=2", {"channels": ["a"]}, "strict='2' is not known"),
    ],
)
def test_post_is_strict_where_it_is_asked_to_be(
    strict: Worker, query: str, body: dict[str, object], words: str
) -> None:
    _assert_problem(httpx.post(f"{strict.url}/events?{query}", json=body), 400, words)


@pytest.mark.parametrize("query", ["_=17", "chanel=b&datastar=%7B%7D", "strict=0&_=17", "_=1&_=2"])
def test_what_others_add_is_ignored(strict: Worker, query: str) -> None:
    """jQuery, Datastar and caches have parameters of their own."""
    for opened in (
        httpx.stream("GET", f"{strict.url}/events?channel=a&{query}"),
        httpx.stream("GET", f"{strict.url}/events/a?{query}"),
        httpx.stream("POST", f"{strict.url}/events?{query}", json={"channels": ["a"], "signals": {"a": 1}}),
    ):
        with opened as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            assert 'data: {"channels":["a"]}' in [next(lines) for _ in range(4)]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
def test_wrong_methods(strict: Worker, method: str) -> None:
    answer = httpx.request(method, f"{strict.url}/events?channel=a")
    _assert_problem(answer, 405, f"{method} is not possible here")
    assert "GET" in answer.headers["allow"]


def test_publish_by_get(strict: Worker) -> None:
    _assert_problem(httpx.get(f"{strict.url}/publish/a"), 405, "only POST")


def test_unknown_path(strict: Worker) -> None:
    _assert_problem(httpx.get(f"{strict.url}/event"), 404, "streams are at /events")


def test_the_console_is_off_and_says_how_to_turn_it_on(strict: Worker) -> None:
    _assert_problem(httpx.get(f"{strict.url}/"), 404, "GATEWAY_CONSOLE=true")


def test_publishing_is_off_and_says_how_to_turn_it_on(strict: Worker) -> None:
    _assert_problem(httpx.post(f"{strict.url}/publish/a", content=b"x"), 403, "--http-publish")


def test_endless_headers_are_cut_off(strict: Worker) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as connection:
        connection.sendall(b"GET /events?channel=a HTTP/1.1\r\n")
        answer = b""
        try:
            for number in range(10_000):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))
        except OSError:
            pass
        try:
            while piece := connection.recv(65536):
                answer += piece
        except OSError:  # reset, because the server didn't read what we still sent
            return
        assert answer.startswith(b"HTTP/1.1 431 ")


def test_garbage_instead_of_http(strict: Worker) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: gzip\r\n\r\nx",
        b"Transfer-Encoding: chunked\r\n\r\nno size\r\n",
    ],
    ids=["coding", "chunk"],
)
def test_garbage_behind_a_head_that_came_with_it(strict: Worker, rest: bytes) -> None:
    """The connection was closed without a word."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as connection:
        connection.sendall(b"POST /events HTTP/1.1\r\nHost: localhost\r\n" + rest)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


PUBLISHED: dict[str, tuple[str, bytes, int, str]] = {
    "reserved": ("gateway.x", b"", 400, "the gateway's own"),
    "no name": ("", b"", 400, "the channel is empty"),
    "control character": ("a%0A", b"", 400, "U+000A"),
    "not UTF-8": ("a", b"\xff", 400, "not UTF-8 at byte 0"),
    "too large": ("a", b"x" * 1_048_577, 413, "max_payload_bytes"),
    "bad envelope": ("a", b'{"event":1,"data":""}', 400, "`event` must be a string, not a number"),
    "forged event": ("a", b'{"event":"gateway.gap","data":""}', 400, "the gateway's own"),
    "unknown parameter": ("a?x=1", b"", 400, "no parameter 'x'"),
}


@pytest.mark.parametrize(("channel", "body", "status", "words"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_message_that_cannot_be_published(
    worker: Worker, channel: str, body: bytes, status: int, words: str
) -> None:
    _assert_problem(httpx.post(f"{worker.url}/publish/{channel}", content=body), status, words)


def test_pages_of_other_sites_may_not_publish(worker: Worker) -> None:
    answer = httpx.post(f"{worker.url}/publish/a", content=b"x", headers={"Origin": "https://evil.example"})
    _assert_problem(answer, 403, "cors_origins")
    same = httpx.post(f"{worker.url}/publish/a", content=b"x", headers={"Origin": worker.url})
    assert same.status_code == 200


def test_publishing_over_http(worker: Worker, channel: str) -> None:
    with open_stream(worker.url, channel) as stream:
        answer = httpx.post(f"{worker.url}/publish/{channel}", content="žluť".encode())
        assert answer.json() == {"channel": channel, "receivers": 1}
        assert stream.next().data == "žluť"


def _assert_problem(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert words in body["detail"]


def _assert_problem_head(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.content == b""
