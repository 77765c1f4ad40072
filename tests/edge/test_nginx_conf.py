"""nginx.conf by itself: no workers, failing workers, what is passed on and what is logged."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from testing.nginx import Nginx
from testing.process import free_port
from testing.transient import transient
from testing.upstream import Upstream, answer
from testing.waiting import wait_until

ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
"""The head of an answer whose body comes in chunks."""


@contextmanager
def nginx_alone(directory: Path, *upstreams: int, **replacing: str) -> Iterator[Nginx]:
    with Nginx(directory, upstreams or [free_port(), free_port()], replacing=replacing) as nginx:
        yield nginx


@pytest.mark.parametrize("path", ["/events?channel=news", "/events/news", "/events/report.html"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_without_workers_a_stream_ends_cleanly(tmp_path: Path, method: str, path: str) -> None:
    content = json.dumps({"channels": ["news"]}) if method == "POST" else None
    with nginx_alone(tmp_path) as nginx:
        response = httpx.request(method, nginx.url + path, content=content, headers={"Origin": "https://a.example"})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Vary"] == "Origin"
    if method != "HEAD":
        assert transient(response.text)[::2] == ("no_worker", None)


@pytest.mark.parametrize("query", ["channel=a&end=abort", "end=abort&channel=a"])
def test_without_workers_a_client_that_takes_a_clean_end_for_the_last_gets_none(tmp_path: Path, query: str) -> None:
    with nginx_alone(tmp_path) as nginx, pytest.raises(httpx.TransportError):
        httpx.get(f"{nginx.url}/events?{query}")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"2.163f28cb35bd3.1eb.CeJIPLv7:1", "2.163f28cb35bd3.1eb.CeJIPLv7:1"),
        (b"17~2.163f28cb35bd3.1eb", "17~2.163f28cb35bd3.1eb"),
        (b"$request_id\"'\\n{}%0a", "$request_id\"'\\n{}%0a"),
        (b"x" * 2304, "x" * 2304),
        (b"x" * 2305, None),
        (b"a b", None),
        (b"a\tb", None),
        ("ž".encode(), None),
        (b"\x7f", None),
        (b"", None),
    ],
)
def test_a_client_is_told_its_own_id_and_nothing_else_it_sends(tmp_path: Path, sent: bytes, told: str | None) -> None:
    with nginx_alone(tmp_path) as nginx:
        response = httpx.get(f"{nginx.url}/events/news", headers={b"Last-Event-ID": sent})
    assert transient(response.text).id == told


def test_without_workers_other_requests_fail_as_usual(tmp_path: Path) -> None:
    with nginx_alone(tmp_path) as nginx:
        assert httpx.post(f"{nginx.url}/publish/news", content=b"x").status_code == 502
        assert httpx.get(f"{nginx.url}/healthz").status_code == 502
        assert httpx.get(f"{nginx.url}/eventsource").status_code == 502


def test_those_sent_away_together_do_not_come_back_together(tmp_path: Path) -> None:
    with nginx_alone(tmp_path) as nginx, httpx.Client() as client:
        pauses = [transient(client.get(f"{nginx.url}/events/news").text).retry for _ in range(200)]
    assert 2000 <= min(pauses) < 3500
    assert 5500 < max(pauses) < 7000
    assert len(set(pauses)) > 150


@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "503 Busy", "504 Too Late"])
def test_a_workers_transient_error_becomes_a_clean_end(tmp_path: Path, status: str) -> None:
    with Upstream(answer(status)) as one, nginx_alone(tmp_path, one.port) as nginx:
        response = httpx.get(f"{nginx.url}/events/news")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")
    assert transient(response.text).reason == "no_worker"


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 405, 413, 429])
def test_what_is_permanent_goes_through(tmp_path: Path, status: int) -> None:
    with (
        Upstream(answer(f"{status} No", "" if status == 204 else "why")) as one,
        nginx_alone(tmp_path, one.port) as nginx,
    ):
        response = httpx.get(f"{nginx.url}/events/news")
    assert response.status_code == status


def received(connection: socket.socket) -> bytes:
    """The first part of an answer; nothing if the other side hung up."""
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("others", [0, 1])
def test_no_connection_left_in_nginx_is_no_reason_to_give_up(tmp_path: Path, others: int) -> None:
    """A stream needs two of nginx' connections; who gets only one of them must not see a 500."""
    scarce = {"worker_processes auto": "worker_processes 1", "worker_connections 19000": "worker_connections 16"}
    answers: list[bytes] = []
    with (
        Upstream(ENDLESS + b"9\r\ndata: x\n\n\r\n", stays=True) as one,
        nginx_alone(tmp_path, one.port, **scarce) as nginx,
        ExitStack() as held,
    ):
        for number in range(others + 10):
            client = held.enter_context(socket.create_connection(("127.0.0.1", nginx.port)))
            # A request that is only begun takes one connection: the last stream finds an odd number, or an even one.
            client.sendall(b"GET /events/news HTTP/1.1\r\nHost: x\r\n" + (b"" if number < others else b"\r\n"))
            if number >= others:
                answers.append(received(client))
    kinds = {answer.partition(b"\r\n")[0] for answer in answers}
    # Hanging up on a browser is fine too: that is a network error, and it comes again.
    assert kinds <= {b"HTTP/1.1 200 OK", b""}


def test_nothing_is_held_back(tmp_path: Path) -> None:
    """Part of an answer arrives before the rest of it is sent, and is not compressed."""
    with (
        Upstream(ENDLESS + b"9\r\ndata: x\n\n\r\n", stays=True) as one,
        nginx_alone(tmp_path, one.port) as nginx,
        httpx.stream("GET", f"{nginx.url}/events/news", headers={"Accept-Encoding": "gzip"}) as response,
    ):
        assert "Content-Encoding" not in response.headers
        assert next(response.iter_raw()) == b"data: x\n\n"


def test_a_client_that_does_not_read_is_the_workers_to_judge(tmp_path: Path) -> None:
    """nginx takes from a worker what the client takes, and no more. It would put a gigabyte on the disk."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with (
        Upstream(ENDLESS + chunk * 1024, stays=True) as one,
        nginx_alone(tmp_path, one.port) as nginx,
        socket.create_connection(("127.0.0.1", nginx.port)) as client,
    ):
        client.sendall(b"GET /events/news HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: one.stalled or one.taken == len(one.answer), "64 MiB taken, or refused")
        assert one.stalled


def test_a_publish_that_was_sent_is_never_sent_again(tmp_path: Path) -> None:
    with Upstream() as one, Upstream() as two, nginx_alone(tmp_path, one.port, two.port) as nginx:
        assert httpx.post(f"{nginx.url}/publish/news", content=b"hello").status_code == 502
        assert len(one.requests) + len(two.requests) == 1


def test_a_publish_that_was_refused_goes_to_the_next_worker(tmp_path: Path) -> None:
    dead = [free_port() for _ in range(5)]
    with Upstream(answer("200 OK", "1")) as one, nginx_alone(tmp_path, *dead, one.port) as nginx:
        statuses = {httpx.post(f"{nginx.url}/publish/news", content=b"hello").status_code for _ in range(6)}
        assert statuses == {200}
        assert len(one.requests) == 6


def test_a_subscription_by_post_is_asked_again(tmp_path: Path) -> None:
    """Unlike publishing it changes nothing, so the second worker is asked when the first dies over it."""
    good = answer("200 OK", "data: x\n\n", "text/event-stream")
    with Upstream() as one, Upstream(good) as two, nginx_alone(tmp_path, one.port, two.port) as nginx:
        bodies = [httpx.post(f"{nginx.url}/events", json={"channels": ["a"]}).text for _ in range(4)]
        assert bodies == ["data: x\n\n"] * 4
        assert len(one.requests) >= 1


def test_workers_learn_who_asks_and_nobody_can_pretend(tmp_path: Path) -> None:
    with Upstream(answer("200 OK")) as one, nginx_alone(tmp_path, one.port) as nginx:
        names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded")
        claims = dict.fromkeys(names, "203.0.113.9")
        httpx.get(f"{nginx.url}/events/a%2Fb?channel=%C3%A4", headers={**claims, "Host": "gateway.example:8080"})
    [request] = one.requests
    line, *headers = request.splitlines()
    assert line == "GET /events/a%2Fb?channel=%C3%A4 HTTP/1.1"
    assert "203.0.113.9" not in request
    assert {
        "Host: gateway.example:8080",
        "X-Forwarded-Host: gateway.example:8080",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Real-IP: 127.0.0.1",
    } <= set(headers)
    assert not [header for header in headers if header.lower().startswith("connection")]


@pytest.mark.parametrize(
    ("uri", "logged"),
    [
        ("/events?token=SECRET", "/events?token=-"),
        ("/events?token=SECRET&channel=a", "/events?token=-&channel=a"),
        ("/events?channel=a&token=SECRET", "/events?channel=a&token=-"),
        ("/events?channel=a&token=SECRET&channel=b", "/events?channel=a&token=-&channel=b"),
        ("/events/news?history=3&token=SECRET", "/events/news?history=3&token=-"),
        ("/events?access_token=SECRET&channel=a%20b", "/events?access_token=-&channel=a%20b"),
        ("/events?TOKEN=SECRET", "/events?TOKEN=-"),
        ("/events?authorization=SECRET&channel=a", "/events?authorization=-&channel=a"),
        ("/events?channel=a&ticket=SECRET", "/events?channel=a&ticket=-"),
        ("/events?Token=SECRET", "/events?Token=-"),
        *(
            (f"/events?channel=a&{name}=2.1.2.sSECRET", f"/events?channel=a&{name}=-")
            for name in ("last_event_id", "lastEventId", "lastEventID", "Last-Event-ID")
        ),
        ("/events?ticket=SECRET&last_event_id=2.1.2.sSECRET", "/events?-"),
        ("/events?ticket=SECRET&channel=a&authorization=SECRET", "/events?-"),
        ("/events?token=SECRET&token=SECRET&channel=a", "/events?-"),
        ("/events?channel=a&tok%65n=SECRET", "/events?-"),
        ("/events?%74oken=SECRET", "/events?-"),
        ("/publish/news?token=SECRET", "/publish/news?token=-"),
        ("/?token=SECRET", "/?token=-"),
        ("/events?channel=token", "/events?channel=token"),
        ("/events?channel=a%20b", "/events?channel=a%20b"),
    ],
)
def test_no_token_is_logged(tmp_path: Path, uri: str, logged: str) -> None:
    with Upstream(answer("200 OK")) as one, nginx_alone(tmp_path, one.port) as nginx:
        with socket.create_connection(("127.0.0.1", nginx.port)) as connection:
            connection.sendall(
                f"GET {uri} HTTP/1.1\r\nHost: x\r\nReferer: http://x/console?token=SECRET\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            while connection.recv(4096):
                pass
        wait_until(lambda: nginx.requests, "a line in the access log")
        [line] = nginx.requests
    assert f'"GET {logged} HTTP/1.1" 200' in line
    assert '"http://x/console"' in line
    assert "SECRET" not in line
    assert "SECRET" in one.requests[0]


def test_no_token_is_logged_when_workers_fail(tmp_path: Path) -> None:
    """nginx' error log holds whole request lines: failed streams are told of in the access log alone."""
    with nginx_alone(tmp_path) as nginx, httpx.Client() as client:
        for _ in range(3):
            client.get(f"{nginx.url}/events?channel=a&token=SECRET")
            client.post(f"{nginx.url}/publish/a?token=SECRET", content=b"x")
        wait_until(lambda: len(nginx.requests) == 6, "six lines in the access log")
        assert "SECRET" not in nginx.error_log.read_text()
        assert all('"502' in line for line in nginx.requests)


@pytest.mark.parametrize("production", [False, True])
def test_the_configuration_is_valid_and_draws_no_warning(tmp_path: Path, production: bool) -> None:
    verdict = Nginx(tmp_path, [8081, 8082], production=production).check()
    assert "test is successful" in verdict
    assert "[warn]" not in verdict
