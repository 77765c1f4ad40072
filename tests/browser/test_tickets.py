"""Tickets in a real browser: a page of another site listens with the script of docs/auth.md."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import jwt
import pytest
from playwright.sync_api import Browser, Page

from testing.browser import chromium
from testing.http import metric
from testing.process import free_port
from testing.servers import RedisServer, Worker
from testing.waiting import DEADLINE, wait_until

SECRET = "a secret that is long enough for anybody"
_DOCUMENT = Path(__file__).parents[2] / "docs" / "auth.md"


def token(seconds: float = 600, **claim: object) -> str:
    claims = {"sub": "alice", "iat": time.time() - 1, "exp": time.time() + seconds, "gateway": claim}
    return jwt.encode(claims, SECRET, "HS256")


class Application:
    """Of another site than the gateway: it has a page, and gets tickets for its visitors.

    Attributes:
        url: of the page.
        seconds: how long its tokens are valid.
        tickets: how many it has had.
    """

    def __init__(self, gateway: str, port: int) -> None:
        self.port = port
        # To a browser this is another site than 127.0.0.1, not only another origin.
        self.url = f"http://localhost:{port}/"
        self.seconds = 600.0
        self.tickets = 0
        self._gateway = gateway

    @contextmanager
    def running(self) -> Iterator["Application"]:
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("text/html", f"<script>{application.script()}</script>".encode())

            def do_POST(self) -> None:
                self._answer("application/json", application.ticket())

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def script(self) -> str:
        """That of the documentation."""
        (script,) = re.findall(r"```js\n(let lastEventId = .+?)```", _DOCUMENT.read_text(), re.DOTALL)
        shown = "window.shown = []; const show = (text) => window.shown.push(text);"
        assert "https://events.example.com" in script
        assert "5000" in script
        own: str = script.replace("https://events.example.com", self._gateway).replace("5000", "100")
        return shown + own

    def ticket(self) -> bytes:
        headers = {"Authorization": f"Bearer {token(self.seconds, subscribe=['closed'])}"}
        answer = httpx.post(f"{self._gateway}/ticket", json={"channels": ["closed"]}, headers=headers)
        assert answer.status_code == 200, answer.text
        self.tickets += 1
        return answer.content


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def port() -> int:
    """The application's, which the gateway has to know."""
    return free_port()


@pytest.fixture
def worker(redis_server: RedisServer, tmp_path: Path, port: int) -> Iterator[Worker]:
    with Worker(
        tmp_path, redis_server.url, jwt_secret=SECRET, jwt_leeway=0, expiry_notice=0, retry_min=0.1, retry_max=0.2,
        retry_busy=0.2, cors_origins=[f"http://localhost:{port}"],
    ) as process:  # fmt: skip
        yield process


@pytest.fixture
def application(worker: Worker, port: int) -> Iterator[Application]:
    with Application(worker.url, port).running() as running:
        yield running


@pytest.fixture
def page(browser: Browser, application: Application) -> Iterator[Page]:
    with browser.new_page() as fresh:
        fresh.set_default_timeout(DEADLINE * 1000)
        fresh.goto(application.url)
        yield fresh


def publish(worker: Worker, text: str) -> None:
    headers = {"Authorization": f"Bearer {token(publish=['closed'])}"}
    answer = httpx.post(f"{worker.url}/publish/closed?durable=1", content=text, headers=headers)
    assert answer.status_code == 200, answer.text


def shown(page: Page) -> list[str]:
    texts: list[str] = page.evaluate("window.shown")
    return texts


def test_a_stream_outlives_its_worker_with_one_ticket(page: Page, worker: Worker, application: Application) -> None:
    sent = []
    for number in range(3):
        wait_until(lambda: metric(worker, "streams") == 1, "the page listens")
        for text in (f"{number}a", f"{number}b"):
            publish(worker, text)
            sent.append(text)
        wait_until(lambda: shown(page) == sent, "all is shown")
        worker.send_signal(signal.SIGKILL)
        worker.stop()
        worker.start()
    publish(worker, "last")
    wait_until(lambda: shown(page) == [*sent, "last"], "all is shown")
    assert application.tickets == 1


def test_a_page_gets_a_new_ticket_when_its_grant_ends(
    browser: Browser, worker: Worker, application: Application
) -> None:
    application.seconds = 2
    with browser.new_page() as page:
        page.goto(application.url)
        sent = []
        number = 0
        while application.tickets < 3:
            publish(worker, f"{number}")
            sent.append(f"{number}")
            number += 1
            page.wait_for_timeout(50)
        wait_until(lambda: len(shown(page)) and shown(page)[-1] == sent[-1], "the last is shown")
        got = shown(page)
        assert got == sent[sent.index(got[0]) :], "from the first it heard, nothing is missing, and nothing twice"
