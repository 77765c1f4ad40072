"""Pages of other origins: who may read, who may send cookies."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from testing.servers import RedisServer, Worker
from testing.stream import open_stream

EXACT = "https://www.example.com"


@pytest.fixture(scope="module", params=["direct", "portable"])
def exact(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    with Worker(
        tmp_path_factory.mktemp("cors"),
        redis_server.url,
        delivery=request.param,
        cors_origins=[EXACT, "https://other.example"],
        cors_credentials=True,
    ) as running:
        yield running


def test_an_exact_origin_may_read_with_cookies(exact: Worker) -> None:
    with open_stream(exact.url, "a", headers={"Origin": EXACT, "Cookie": "a=b"}) as stream:
        headers = stream.response.headers
        assert headers["access-control-allow-origin"] == EXACT
        assert headers["access-control-allow-credentials"] == "true"
        assert "Origin" in headers["vary"]


def test_another_origin_may_not(exact: Worker) -> None:
    with open_stream(exact.url, "a", headers={"Origin": "https://evil.example"}) as stream:
        assert "access-control-allow-origin" not in stream.response.headers


def test_errors_can_be_read_too(exact: Worker) -> None:
    answer = httpx.get(f"{exact.url}/events", headers={"Origin": EXACT})
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == EXACT


def test_a_preflight_allows_what_clients_send(exact: Worker) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,last-event-id"}
    answer = httpx.options(f"{exact.url}/events", headers={"Origin": EXACT, **asked})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == EXACT
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "last-event-id" in answer.headers["access-control-allow-headers"].lower()
    refused = httpx.options(f"{exact.url}/events", headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in refused.headers


def _preflight(url: str, path: str, method: str, headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return httpx.options(url + path, headers={"Origin": EXACT, **asked})


@pytest.mark.parametrize(
    ("client", "method", "path", "headers"),
    [
        ("fetch", "GET", "/events?channel=a", "authorization,cache-control,last-event-id"),
        ("fetch with a body", "POST", "/events", "authorization,content-type,last-event-id"),
        ("Datastar", "GET", "/events?channel=a", "datastar-request,last-event-id"),
        ("Datastar with signals", "POST", "/events", "content-type,datastar-request"),
        ("htmx", "GET", "/events?channel=a", "hx-current-url,hx-request,hx-target,hx-trigger,hx-trigger-name"),
        ("htmx, a boosted link", "GET", "/events?channel=a", "hx-boosted,hx-current-url,hx-request"),
        ("a publisher", "POST", "/publish/a", "authorization,content-type,idempotency-key"),
        ("a publisher that deletes", "DELETE", "/publish/a", "authorization"),
    ],
)
def test_what_clients_send_passes_a_preflight(
    exact: Worker, client: str, method: str, path: str, headers: str
) -> None:
    answer = _preflight(exact.url, path, method, headers)
    assert (answer.status_code, answer.text) == (200, "OK"), client
    assert answer.headers["access-control-allow-origin"] == EXACT
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(headers.split(",")) <= set(allowed)


@pytest.mark.parametrize(("method", "headers"), [("PUT", "authorization"), ("GET", "x-own"), ("PATCH", "")])
def test_what_no_client_sends_does_not(exact: Worker, method: str, headers: str) -> None:
    assert _preflight(exact.url, "/events", method, headers).status_code == 400


@pytest.mark.parametrize(
    ("setting", "headers", "status"),
    [
        ("X-Own, X-Other", "x-own,x-other,last-event-id", 200),
        ("X-Own", "x-own,x-third", 400),
        ("*", "x-own,x-third,last-event-id", 200),
    ],
)
def test_further_headers_are_a_setting(redis_server: RedisServer, setting: str, headers: str, status: int) -> None:
    given = {"cors_origins": EXACT, "cors_headers": setting, "redis_url": redis_server.url}
    app = create_app(Settings.load(given))

    async def ask() -> httpx.Response:
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": headers}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.options("/events", headers={"Origin": EXACT, **asked})

    assert asyncio.run(ask()).status_code == status


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        ("*", "https://anyone.example", "*"),
        ("https://*.example.com", "https://a.b.example.com", "https://a.b.example.com"),
        ("https://*.example.com", "https://example.com", None),
        ("https://*.example.com", "https://evil.com/.example.com", None),
        ("http://localhost:*", "http://localhost:3000", "http://localhost:3000"),
        ("http://localhost:*", "http://localhost.evil.example:3000", None),
        ("http://localhost:*", "https://localhost:3000", None),
    ],
)
def test_wildcards(redis_server: RedisServer, setting: str, origin: str, allowed: str | None) -> None:
    app = create_app(Settings.load({"cors_origins": setting, "redis_url": redis_server.url}))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.get("/healthz", headers={"Origin": origin})

    answer = asyncio.run(ask())
    assert answer.headers.get("access-control-allow-origin") == allowed


_SETTING = "https://www.example.com https://*.shop.example http://localhost:*"


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        (_SETTING, "https://www.example.com", True),
        (_SETTING, "https://a.b.shop.example", True),
        (_SETTING, "http://localhost:3000", True),
        (_SETTING, "http://gateway", True),
        (_SETTING, "https://gateway", True),  # TLS may have ended at a proxy
        (_SETTING, None, True),
        (_SETTING, "http://www.example.com", False),
        (_SETTING, "https://www.example.com.evil", False),
        (_SETTING, "https://evil.example/https://www.example.com", False),
        (_SETTING, "https://shop.example", False),
        (_SETTING, "https://evil@a.shop.example", False),
        (_SETTING, "https://x/.shop.example", False),
        (_SETTING, "https://a.shop.example.evil", False),
        (_SETTING, "http://gateway:81", False),
        (_SETTING, "http://gateway.evil", False),
        (_SETTING, "gateway", False),
        (_SETTING, "null", False),
        ("", "http://gateway", True),
        ("", "https://www.example.com", False),
        ("*", "https://anyone.example", True),
        ("*", "null", True),
    ],
)
def test_pages_that_may_read_may_publish(
    redis_server: RedisServer, channel: str, setting: str, origin: str | None, allowed: bool
) -> None:
    app = create_app(Settings.load({"cors_origins": setting, "redis_url": redis_server.url, "http_publish": True}))
    heard = redis_server.client().pubsub()  # type: ignore[no-untyped-call]
    heard.subscribe(channel)
    assert heard.get_message(timeout=20) is not None

    async def ask() -> httpx.Response:
        headers = {} if origin is None else {"Origin": origin}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.post(f"/publish/{channel}", content=b"x", headers=headers)

    answer = asyncio.run(ask())
    if allowed:
        assert answer.json() == {"channel": channel, "receivers": 1}
    else:
        assert answer.status_code == 403
        assert "cors_origins" in answer.json()["detail"]
        redis_server.client().publish(channel, "end")
        message = heard.get_message(timeout=20)
        assert message is not None
        assert message["data"] == b"end", "nothing was published before"
    heard.close()


def test_without_the_setting_there_are_no_such_headers(worker: Worker) -> None:
    answer = httpx.get(f"{worker.url}/healthz", headers={"Origin": EXACT})
    assert "access-control-allow-origin" not in answer.headers
