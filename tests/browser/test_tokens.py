"""Tokens in a real browser: the cookie of an EventSource, and the console's token."""

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from playwright.sync_api import Browser, Page, expect

from testing.browser import CLOSED, Listener, chromium
from testing.servers import RedisServer, Worker
from testing.waiting import DEADLINE, wait_until

SECRET = "a secret that is long enough for anybody"


@pytest.fixture(scope="module")
def worker(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(
        tmp_path_factory.mktemp("worker"), redis_server.url, console=True, jwt_secret=SECRET, jwt_leeway=0,
        expiry_notice=2, public_channels=["open.*"], retry_min=0.1, retry_max=0.2,
    ) as process:  # fmt: skip
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, worker: Worker) -> Iterator[Page]:
    """On the gateway's own origin."""
    with browser.new_page() as fresh:
        fresh.set_default_timeout(DEADLINE * 1000)
        fresh.goto(f"{worker.url}/healthz")
        yield fresh


def token(seconds: float = 600, **claim: Any) -> str:
    claims = {"sub": "alice", "exp": time.time() + seconds, "gateway": claim}
    return jwt.encode(claims, SECRET, "HS256")


def set_cookie(page: Page, worker: Worker, text: str) -> None:
    page.context.add_cookies([{"name": "gateway_token", "value": text, "url": worker.url, "httpOnly": True}])


def publish(server: RedisServer, channel: str, *texts: str) -> None:
    with server.client() as client:
        for text in texts:
            client.publish(channel, text)


def test_a_page_that_renews_its_cookie_misses_nothing(page: Page, worker: Worker, redis_server: RedisServer) -> None:
    set_cookie(page, worker, token(3, subscribe=["closed"]))
    source = Listener(page, "/events?channel=closed", ("message", "gateway.expiring", "gateway.closing"))
    source.wait_open()
    publish(redis_server, "closed", "one")
    wait_until(lambda: "gateway.expiring" in [type_ for type_, *_ in source.events], "it is told")
    set_cookie(page, worker, token(subscribe=["closed"]))
    # What comes just while the stream ends is the hard part.
    sent = 0
    while source.opened < 2:
        publish(redis_server, "closed", f"meanwhile {sent}")
        sent += 1
        time.sleep(0.02)
    publish(redis_server, "closed", "last")
    wait_until(lambda: source.events[-1][1] == "last", "it goes on")
    assert [data for type_, data, _ in source.events if type_ == "message"] == [
        "one", *[f"meanwhile {number}" for number in range(sent)], "last",
    ]  # fmt: skip
    (closing,) = [json.loads(data) for type_, data, _ in source.events if type_ == "gateway.closing"]
    assert closing == {"reason": "expired"}


def test_a_page_that_does_not_stops_and_knows_it(page: Page, worker: Worker) -> None:
    set_cookie(page, worker, token(1, subscribe=["closed"]))
    source = Listener(page, "/events?channel=closed")
    source.wait_open()
    wait_until(lambda: source.state == CLOSED, "401 ends it")


def test_without_a_cookie_public_channels_are_open(page: Page, worker: Worker, redis_server: RedisServer) -> None:
    public, closed = Listener(page, "/events?channel=open.a"), Listener(page, "/events?channel=closed")
    public.wait_open()
    publish(redis_server, "open.a", "hello")
    wait_until(lambda: public.events == [("message", "hello", "")], "it comes")
    wait_until(lambda: closed.state == CLOSED, "401 ends it")


def test_the_console_takes_a_token(page: Page, worker: Worker) -> None:
    page.goto(f"{worker.url}/#channel=closed")
    expect(page.locator("#state")).to_have_text("Closed")
    expect(page.locator("#banner")).to_contain_text("Without a token you may not subscribe to channel 'closed'.")
    expect(page.locator("#public")).to_be_hidden()
    page.get_by_label("Token").fill(token(subscribe=["closed"], publish=["closed"]))
    page.get_by_label("Token").press("Enter")
    expect(page.locator("#state")).to_have_text("Open")
    page.locator("#to").fill("closed")
    page.locator("#publish button").click()
    expect(page.locator("#rows > .event")).to_have_count(1)
    assert "ey" not in page.url
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
