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


def test_without_the_setting_there_are_no_such_headers(worker: Worker) -> None:
    answer = httpx.get(f"{worker.url}/healthz", headers={"Origin": EXACT})
    assert "access-control-allow-origin" not in answer.headers
