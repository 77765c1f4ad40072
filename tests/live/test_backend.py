"""Asking the application's own backend: real sessions, and backends that fail."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import jwt
import pytest

from testing.http import metric
from testing.process import free_port
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until

SECRET = "a secret that is long enough for anybody"


class Application:
    """A backend that answers what it is told to.

    Attributes:
        answer: status and body.
        delay: seconds before each answer.
        asked: the questions, and their headers.
        most: how many it was asked at the same time.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/gateway/auth"
        self.delay = 0.0
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.most = 0
        self.is_running = False
        self._now = 0
        self._left = threading.Event()
        self._lock = threading.Lock()
        self.grants()

    def grants(self, **grant: Any) -> None:
        self.answer: tuple[int, bytes] = (200, json.dumps(grant).encode())

    def refuses(self, status: int) -> None:
        self.answer = status, b""

    @contextmanager
    def running(self) -> Iterator[Self]:
        application = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if not application.is_running:  # on a connection from before
                    self.close_connection = True
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with application._lock:
                    application.asked.append((body, {key.lower(): value for key, value in self.headers.items()}))
                    application._now += 1
                    application.most = max(application.most, application._now)
                application._left.wait(application.delay)
                with application._lock:
                    application._now -= 1
                status, content = application.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):  # it wasn't waited for
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # else the kernel drops connections of a hundred sessions at once

        with Server(("127.0.0.1", self.port), Handler) as http:
            thread = threading.Thread(target=http.serve_forever, args=(0.01,))
            thread.start()
            self.is_running = True
            self._left.clear()
            try:
                yield self
            finally:
                self.is_running = False
                self._left.set()
                wait_until(lambda: self._now == 0, "no thread hangs any more")
                http.shutdown()
                thread.join()


def asked(worker: Worker, channel: str = "news", **headers: str) -> str:
    """What comes of a request for a stream: its first event, or the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with httpx.stream("GET", f"{worker.url}/events?channel={channel}", headers=named) as answer:
        if answer.status_code != 200:
            assert answer.read()
            return str(answer.status_code)
        return next(line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: "))


OPEN, LATER = "gateway.open", "gateway.closing"


@pytest.fixture
def backend() -> Iterator[Application]:
    with Application().running() as running:
        yield running


@contextmanager
def worker_with(backend: Application, redis: RedisServer, path: Path, **settings: Any) -> Iterator[Worker]:
    with Worker(path, redis.url, auth_url=backend.url, **settings) as worker:
        yield worker


def test_the_backend_is_asked_with_what_the_request_has(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.grants(sub="42", subscribe=["news.*"], publish=["chat"])
    with worker_with(
        backend, redis_server, tmp_path, allowed_patterns="*", cors_origins="https://a.example", cors_credentials=True
    ) as worker:
        headers = {
            "Cookie": "sessionid=öüß; theme=dark", "Authorization": "Basic YTpi", "Origin": "https://a.example",
        }  # fmt: skip
        encoded = {name: value.encode() for name, value in headers.items()}
        with open_stream(worker.url, ["news.a", "news.b"], params=[("pattern", "news.x*")], headers=encoded):
            pass
        question, received = backend.asked[-1]
        assert question == {
            "action": "subscribe", "channels": ["news.a", "news.b"], "patterns": ["news.x*"], "address": "127.0.0.1",
        }  # fmt: skip
        assert received["cookie"].encode("latin-1").decode() == headers["Cookie"]
        assert (received["authorization"], received["origin"]) == ("Basic YTpi", "https://a.example")
        answer = httpx.post(f"{worker.url}/publish/chat", content="x", headers={"Cookie": "sessionid=a"})
        assert answer.status_code == 200
        assert backend.asked[-1][0] == {
            "action": "publish", "channels": ["chat"], "patterns": [], "address": "127.0.0.1",
        }  # fmt: skip
        assert asked(worker, "other", Cookie="a=b") == "403"
        answer = httpx.post(f"{worker.url}/publish/other", content="x", headers={"Cookie": "sessionid=a"})
        assert answer.status_code == 403


def test_publishing_takes_its_own_setting_beside_a_backend(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.grants(publish=["*"])
    with worker_with(backend, redis_server, tmp_path, http_publish=False) as worker:
        answer = httpx.post(f"{worker.url}/publish/news", content="x", headers={"Cookie": "session=a"})
        assert answer.status_code == 403
        assert "Publishing over HTTP is off" in answer.json()["detail"]


def test_what_the_backend_refuses(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    with worker_with(backend, redis_server, tmp_path, public_channels="open.*") as worker:
        backend.refuses(401)
        assert asked(worker, Cookie="session=old") == "401"
        assert asked(worker) == "401", "it may grant something to those whom it doesn't know"
        backend.refuses(403)
        assert asked(worker, Cookie="session=other") == "403"
        count = len(backend.asked)
        assert asked(worker, "open.a", Cookie="session=old") == OPEN
        assert len(backend.asked) == count, "about public channels it isn't asked"
        assert metric(worker, "unauthorized_requests_total", reason="backend") == 3


def test_the_backend_says_who_may_revoke(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    with worker_with(backend, redis_server, tmp_path, auth_cache=0) as worker:

        def revoke(**headers: str) -> int:
            named = {"Cookie": "session=a", **headers}
            return httpx.post(f"{worker.url}/revoke", json={"sub": "42"}, headers=named).status_code

        backend.grants(sub="41", admin=False)
        assert revoke() == 403
        backend.grants(sub="1", admin=True)
        assert revoke(Origin="https://evil.example") == 403
        backend.grants(sub="42", subscribe=["*"])
        with open_stream(worker.url, "news", headers={"Cookie": "session=42"}) as stream:
            backend.grants(sub="1", admin=True)
            assert revoke() == 200
            assert backend.asked[-1][0]["action"] == "admin"
            assert [event.type for event in stream.rest()] == ["gateway.closing"]
        backend.grants(sub="42", subscribe=["*"])
        assert asked(worker, Cookie="session=42") == OPEN, "it is for the backend to say no from now on"


def test_the_same_question_is_asked_once(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    backend.grants(subscribe=["*"])
    backend.delay = 0.3
    with (
        worker_with(backend, redis_server, tmp_path, auth_cache=60, auth_concurrency=3) as worker,
        ThreadPoolExecutor(20) as pool,
    ):
        assert set(pool.map(lambda _: asked(worker, Cookie="session=a"), range(20))) == {OPEN}
        assert len(backend.asked) == 1
        assert asked(worker, Cookie="session=a") == OPEN
        assert len(backend.asked) == 1
        outcomes = Counter(pool.map(lambda number: asked(worker, Cookie=f"session={number}"), range(12)))
        assert outcomes == {OPEN: 12}
        assert len(backend.asked) == 13
        assert backend.most == 3
        assert asked(worker, "another", Cookie="session=a") == OPEN
        assert len(backend.asked) == 14


def test_ten_thousand_reconnects_of_a_hundred_sessions(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.grants(subscribe=["*"])

    async def reconnect(port: int, session: int) -> None:
        head = f"GET /events?channel=news HTTP/1.1\r\nHost: x\r\nCookie: session={session}\r\n\r\n".encode()
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            await reader.readuntil(b"event: gateway.open")
            writer.close()
            await writer.wait_closed()

    async def reconnect_all(port: int) -> None:
        await asyncio.gather(*[reconnect(port, session) for session in range(100)])

    with worker_with(backend, redis_server, tmp_path, auth_cache=600) as worker:
        asyncio.run(reconnect_all(worker.port))
        assert metric(worker, "streams_opened_total") == 10_000
        assert len(backend.asked) == 100


def test_open_streams_go_on_while_the_backend_hangs(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.grants(subscribe=["*"])
    with (
        worker_with(backend, redis_server, tmp_path, auth_timeout=60, auth_concurrency=5) as worker,
        open_stream(worker.url, "news", headers={"Cookie": "session=a"}) as stream,
        contextlib.ExitStack() as hanging,
    ):
        backend.delay = 60
        for number in range(200):
            connection = hanging.enter_context(socket.create_connection(("127.0.0.1", worker.port)))
            head = f"GET /events?channel=news HTTP/1.1\r\nHost: x\r\nCookie: session={number}\r\n\r\n"
            connection.sendall(head.encode())
        wait_until(lambda: backend.most == 5, "as many are asked as may be")
        with redis_server.client() as redis:
            for number in range(1000):
                redis.publish("news", str(number))
        assert [event.data for event in stream.take(1000)] == [str(number) for number in range(1000)]
        assert asked(worker, Cookie="session=a") == OPEN, "whoever is known comes in"
        assert httpx.get(f"{worker.url}/readyz").status_code == 200


def test_a_ticket_by_the_backends_word(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    backend.grants(sub="ticket owner", subscribe=["news"], expires_at=time.time() + 600)
    with worker_with(backend, redis_server, tmp_path) as worker:
        url, body, headers = f"{worker.url}/ticket", {"channels": ["news"]}, {"Cookie": "session=a"}
        answer = httpx.post(url, json=body, headers=headers)
        assert answer.status_code == 200
        assert [question["action"] for question, _ in backend.asked] == ["subscribe"]
        ticket = answer.json()["ticket"]
        backend.refuses(401)
        with open_stream(worker.url, params=[("ticket", ticket)]) as stream, redis_server.client() as redis:
            redis.publish("news", "hello")
            assert stream.next().data == "hello"
        assert len(backend.asked) == 1, "a ticket is not the backend's"
        for status in (401, 403):
            backend.refuses(status)
            assert httpx.post(url, json=body, headers={"Cookie": f"session={status}"}).status_code == status
        backend.refuses(500)
        assert httpx.post(url, json=body, headers={"Cookie": "session=500"}).status_code == 503
        backend.grants(subscribe=["other"])
        assert httpx.post(url, json=body, headers={"Cookie": "session=b"}).status_code == 403
        evil = {"Cookie": "session=a", "Origin": "https://evil.example"}
        assert httpx.post(url, json=body, headers=evil).status_code == 403


def test_tickets_made_after_a_revocation_count(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    with worker_with(backend, redis_server, tmp_path, auth_cache=60) as worker:

        def ticket() -> str:
            answer = httpx.post(f"{worker.url}/ticket", json={"channels": ["news"]}, headers={"Cookie": "session=a"})
            made: str = answer.json()["ticket"]
            return made

        def opened(text: str) -> int:
            with httpx.stream("GET", f"{worker.url}/events?ticket={text}") as stream:
                return stream.status_code

        backend.grants(sub="comes again", subscribe=["news"])
        assert opened(ticket()) == 200
        before = ticket()
        backend.grants(sub="root", admin=True)
        answer = httpx.post(f"{worker.url}/revoke", json={"sub": "comes again"}, headers={"Cookie": "session=root"})
        assert answer.status_code == 200
        backend.grants(sub="comes again", subscribe=["news"])
        wait_until(lambda: opened(ticket()) == 200, "the backend has said it again")
        assert opened(before) == 401


def test_an_answer_counts_for_a_while(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    backend.grants(subscribe=["*"])
    with worker_with(backend, redis_server, tmp_path, auth_cache=0.2) as worker:
        assert asked(worker, Cookie="session=a") == OPEN
        backend.refuses(401)
        wait_until(lambda: asked(worker, Cookie="session=a") == "401", "it is asked again")
        backend.grants(subscribe=["*"])
        wait_until(lambda: asked(worker, Cookie="session=a") == OPEN, "refusals don't last longer")


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""),
        (302, b""),
        (404, b""),
        (204, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"subscribe": "news"}'),
        (200, b'{"sub": 7}'),
        (200, b'{"expires_at": "soon"}'),
        (200, b'{"expires_at": NaN}'),
        (200, b'{"expires_at": 1' + b"0" * 400 + b"}"),
        (200, b"[" * 100_000),
        (200, b'{"sub": "' + b"x" * 300_000 + b'"}'),
    ],
    ids=lambda answer: f"{answer[0]} {answer[1][:20].decode()}",
)
def test_an_answer_that_is_none_kills_nobody(
    answer: tuple[int, bytes], backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.answer = answer
    with worker_with(backend, redis_server, tmp_path) as worker:
        assert asked(worker, Cookie="session=a") == LATER
        published = httpx.post(f"{worker.url}/publish/news", content="x", headers={"Cookie": "session=a"})
        assert published.status_code == 503
        backend.grants(subscribe=["*"])
        assert asked(worker, Cookie="session=a") == OPEN
        assert "Traceback" not in worker.output


def test_a_backend_that_fails_is_left_alone(redis_server: RedisServer, tmp_path: Path) -> None:
    backend = Application()
    backend.grants(subscribe=["*"])
    with worker_with(backend, redis_server, tmp_path, auth_timeout=0.5) as worker:
        for number in range(8):
            assert asked(worker, Cookie=f"session={number}") == LATER
        assert metric(worker, "backend_questions_total", outcome="failed") == 5
        assert metric(worker, "backend_questions_total", outcome="resting") == 3
        with backend.running():
            wait_until(lambda: asked(worker, Cookie="session=a") == OPEN, "it is asked again")
            assert len(backend.asked) == 1
            backend.delay = 1.0
            assert asked(worker, Cookie="session=b") == LATER


@pytest.mark.parametrize("header", ["Cookie", "Authorization", "Origin"])
def test_blanks_around_a_header_are_no_part_of_it(
    backend: Application, redis_server: RedisServer, tmp_path: Path, header: str
) -> None:
    """Five such requests were five failures of a backend that was never asked, and locked out everybody else."""
    backend.grants(subscribe=["*"])
    value = {"Cookie": "session=a", "Authorization": "Basic hunter2", "Origin": ""}[header]
    with worker_with(backend, redis_server, tmp_path) as worker:
        origin = value or worker.url
        for number in range(8):
            host = f"127.0.0.1:{worker.port}"
            text = f"GET /events?channel=c{number} HTTP/1.1\r\nHost: {host}\r\n{header}: {origin} \t\r\n"
            with socket.create_connection(("127.0.0.1", worker.port)) as connection:
                connection.sendall(text.encode() + b"\r\n")
                answer = connection.recv(65536)
                assert b"200 OK" in answer, answer
                while b"event: " not in answer:
                    answer += connection.recv(65536)
                assert b"gateway.open" in answer
        assert len(backend.asked) == 8
        assert backend.asked[0][1][header.lower()] == origin
        assert metric(worker, "backend_questions_total", outcome="failed") == 0
        assert "hunter2" not in worker.output


def test_what_one_client_sends_costs_the_others_nothing(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A backend answers 400 or 431 to cookies that are too large; five of those locked out everybody."""
    with worker_with(backend, redis_server, tmp_path) as worker:
        for status in (400, 404, 413, 431, 431, 431):
            backend.refuses(status)
            assert asked(worker, Cookie=f"session={'x' * 12_000}{status}") == LATER
        backend.grants(subscribe=["*"])
        assert asked(worker, Cookie="session=a") == OPEN
        assert metric(worker, "backend_questions_total", outcome="rejected") == 6
        for number in range(5):
            backend.refuses(429)
            assert asked(worker, Cookie=f"session={number}") == LATER
        backend.grants(subscribe=["*"])
        assert asked(worker, Cookie="session=b") == LATER, "that one says that it has too much to do"


def test_no_log_line_has_a_password_in_it(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    backend.refuses(500)
    url = backend.url.replace("//", "//user:hunter2@") + "?key=hunter3"
    with Worker(tmp_path, redis_server.url, auth_url=url, log_level="debug") as worker:
        assert asked(worker, Cookie="session=hunter4") == LATER
        assert "gave no grant" in worker.output
        assert "hunter" not in worker.output


def test_the_last_grant_may_count_meanwhile(redis_server: RedisServer, tmp_path: Path) -> None:
    backend = Application()
    with worker_with(backend, redis_server, tmp_path, auth_cache=0, auth_grace=600) as worker:
        with backend.running():
            backend.grants(subscribe=["*"])
            assert asked(worker, Cookie="session=a") == OPEN
            backend.grants(subscribe=["*"], expires_at=time.time() + 1)
            assert asked(worker, Cookie="session=short") == OPEN
            backend.refuses(401)
            assert asked(worker, Cookie="session=refused") == "401"
        assert asked(worker, Cookie="session=a") == OPEN
        assert asked(worker, Cookie="session=new") == LATER
        assert asked(worker, Cookie="session=refused") == LATER, "it may have logged in meanwhile"
        wait_until(lambda: asked(worker, Cookie="session=short") == LATER, "no grant outlives its end")
        assert metric(worker, "backend_questions_total", outcome="grace") >= 1


def test_a_stream_ends_with_its_grant(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    with worker_with(backend, redis_server, tmp_path, expiry_notice=1) as worker:
        backend.grants(subscribe=["*"], expires_at=time.time() + 2)
        with open_stream(worker.url, "news", headers={"Cookie": "session=a"}) as stream:
            assert [event.type for event in stream.rest()] == ["gateway.expiring", "gateway.closing"]
        assert asked(worker, Cookie="session=a") == "401"


def test_subjects_are_not_put_into_the_backends_globs(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.grants(sub="a", subscribe=["user.{sub}"])
    with worker_with(backend, redis_server, tmp_path) as worker:
        assert asked(worker, "user.a", Cookie="session=a") == "403"


def test_cookies_of_other_sites_are_not_shown_to_the_backend(
    backend: Application, redis_server: RedisServer, tmp_path: Path
) -> None:
    backend.grants(subscribe=["*"])
    with worker_with(backend, redis_server, tmp_path) as worker:
        assert asked(worker, Cookie="session=a", Origin="https://evil.example") == "403"
        assert asked(worker, Cookie="session=a", Sec_Fetch_Site="cross-site") == "403"
        assert asked(worker, Authorization="Basic YTpi", Sec_Fetch_Site="cross-site") == "403"
        assert backend.asked == []


def test_tokens_come_before_the_backend(backend: Application, redis_server: RedisServer, tmp_path: Path) -> None:
    def token(secret: str = SECRET) -> str:
        text: str = jwt.encode({"gateway": {"subscribe": ["mine"]}}, secret, "HS256")
        return text

    backend.grants(subscribe=["theirs"])
    with worker_with(backend, redis_server, tmp_path, jwt_secret=SECRET, public_channels="open.*") as worker:
        assert asked(worker, "mine", Authorization=f"Bearer {token()}") == OPEN
        assert asked(worker, "mine", Cookie=f"gateway_token={token()}") == OPEN
        assert asked(worker, "theirs", Authorization=f"Bearer {token()}") == "403"
        assert asked(worker, "theirs", Authorization=f"Bearer {token(SECRET[::-1])}") == "401"
        assert backend.asked == []
        assert asked(worker, "theirs", Cookie="session=a") == OPEN
        assert asked(worker, "theirs", Authorization="Bearer opaque") == OPEN
        assert asked(worker, "theirs") == OPEN
        backend.refuses(401)
        for damaged in ("opaque", token()[:-50], "a.b", token() + ".x"):
            assert asked(worker, "open.a", Authorization=f"Bearer {damaged}") == "401", "nobody becomes nobody"
