"""The way past the router, held against the way through it."""

import asyncio

import httpx
import pytest

from gateway.app import Gateway
from gateway.settings import Settings
from gateway.web.shortcut import Shortcut

_REQUESTS = [
    ("GET", "/events"),
    ("GET", "/events?nonsense=1"),
    ("GET", "/events?channel=gateway.x"),
    ("GET", "/events?pattern=x*"),
    ("GET", "/events?channel=%ff"),
    ("GET", "/events?channel=a"),
    ("HEAD", "/events?channel=a"),
    ("HEAD", "/events"),
    ("POST", "/events"),
    ("POST", "/events?channel=a"),
    ("OPTIONS", "/events"),
    ("DELETE", "/events"),
    ("GET", "/events/"),
    ("GET", "/events/a"),
    ("GET", "/events/%ff"),
    ("GET", "//events"),
    ("GET", "/event"),
]


@pytest.mark.parametrize("root_path", ["", "/events", "/under"])
@pytest.mark.parametrize("origin", ["https://a.test", "https://other.test"])
@pytest.mark.parametrize("host", ["good.test", "bad.test"])
@pytest.mark.parametrize(("method", "url"), _REQUESTS)
def test_answers_are_the_same(
    method: str, url: str, host: str, origin: str, root_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(cors_origins=("https://a.test",), allowed_hosts=("good.test",))
    gateway = Gateway(settings)
    gateway.members.draining = True  # so that streams end
    monkeypatch.setattr("random.uniform", lambda low, high: low)

    def ask() -> tuple[int, bytes, dict[str, str]]:
        answer = _ask(gateway, method, url, {"host": host, "origin": origin}, root_path)
        return answer.status_code, answer.content, dict(answer.headers)

    past = ask()
    used = []

    async def through(self: Shortcut, *arguments: object) -> None:
        used.append(self)
        await self._app(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Shortcut, "__call__", through)
    assert ask() == past
    assert used or host == "bad.test" or method == "OPTIONS"


def test_a_fault_is_answered_and_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(Settings())
    monkeypatch.setattr(gateway.admission, "register", lambda *_: 1 / 0)
    answer = _ask(gateway, "GET", "/events?channel=a")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    with pytest.raises(ZeroDivisionError):
        _ask(gateway, "GET", "/events?channel=a", raising=True)


def _ask(
    gateway: Gateway,
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    root_path: str = "",
    raising: bool = False,
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(gateway.app, raise_app_exceptions=raising, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            return await client.request(method, url, headers=headers)

    return asyncio.run(ask())
