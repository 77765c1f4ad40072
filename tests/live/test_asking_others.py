"""Asking a backend or a key server holds nobody up: in process, with servers that answer and such that don't."""

import asyncio
import ssl

import pytest

from gateway.auth.backend import Backend
from gateway.auth.credentials import Credentials
from gateway.auth.errors import CannotTell, Forbidden
from gateway.auth.key_set import RemoteKeys
from gateway.metrics import Metrics
from gateway.settings import Settings
from testing.upstream import Upstream, answer

pytestmark = pytest.mark.anyio


def backend_at(port: int, **settings: float) -> Backend:
    return Backend(Settings.load({"auth_url": f"http://127.0.0.1:{port}/", **settings}), Metrics())


async def asked(backend: Backend, cookie: str = "session=a") -> None:
    await backend.grant("subscribe", Credentials(cookie=cookie), ("a",), (), "")


async def test_certificates_are_read_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes 40 ms, in which no event goes out."""
    with Upstream(answer("403 Forbidden")) as application, Upstream(answer("200 OK", '{"keys": []}')) as provider:
        backend = backend_at(application.port)
        keys = RemoteKeys(f"http://127.0.0.1:{provider.port}/", lambda: None, Metrics())
        monkeypatch.delattr(ssl, "create_default_context")
        with pytest.raises(Forbidden):
            await asked(backend)
        assert await keys.find("RS256", None) == []
        await backend.close()


async def test_those_who_wait_for_a_backend_that_hangs_are_told_one_after_the_other() -> None:
    told: list[int] = []
    turns = 0

    async def ask(number: int) -> None:
        with pytest.raises(CannotTell):
            await asked(backend, f"session={number}")
        told.append(turns)

    with Upstream(stays=True) as application:
        backend = backend_at(application.port, auth_timeout=0.2, auth_concurrency=5)
        all_told = asyncio.gather(*map(ask, range(100)))
        while not all_told.done():
            turns += 1
            await asyncio.sleep(0)
        await backend.close()
    assert len(told) == 100
    assert len(set(told)) >= 80, "but for those whose time was over, and those who came just then"
