"""Revocations in Redis, in this process."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.broker.revocations import Revocations, revocations
from gateway.ports import PublishFailed
from gateway.settings import Settings
from testing.process import free_port
from testing.servers import RedisServer
from testing.waiting import until

pytestmark = pytest.mark.anyio


class Worker:
    """One that is told of revocations."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.revocations = revocations(Settings(redis_url=url, channel_prefix="p:", **settings))
        self.told: list[str] = []
        self.revocations.on_revoked = lambda revoked: self.told.extend(sub for sub, _ in revoked)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Worker"]:
        task = asyncio.create_task(self.revocations.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.revocations.close()


async def test_what_is_revoked_is_known_everywhere(private_redis: RedisServer) -> None:
    now = time.time()
    one, other = Worker(private_redis.url), Worker(private_redis.url)
    async with one.running(), other.running():
        assert one.revocations.channel == b"p:gateway.revoked.0"
        async with Redis(port=private_redis.port).pubsub(ignore_subscribe_messages=True) as heard:
            await heard.subscribe("p:gateway.revoked.0")
            await one.revocations.revoke("alice")
            assert await until_heard(heard) == b"", "who it is, is nobody's business"
        assert other.told == []
        other.revocations.told(b"")
        await until(lambda: other.told == ["alice"], "it is read")
        is_revoked = other.revocations.is_revoked
        assert is_revoked("alice", now - 1)
        assert is_revoked("alice", None)
        assert not is_revoked("alice", time.time() + 1)
        assert not is_revoked("bob", None)
        assert not is_revoked(None, None)
        assert not one.revocations.is_revoked("alice", None), "it has not been told"


async def until_heard(heard: Any) -> bytes:
    while (message := await heard.get_message(timeout=20)) is None:
        pass
    data: bytes = message["data"]
    return data


async def test_each_revocation_is_told_once(private_redis: RedisServer) -> None:
    worker = Worker(private_redis.url)
    for sub in ("alice", "bob"):
        await worker.revocations.revoke(sub)
    await worker.revocations.read()
    await worker.revocations.read()
    assert worker.told == ["alice", "bob"]
    await worker.revocations.revoke("alice")
    await worker.revocations.read()
    assert worker.told == ["alice", "bob", "alice"], "a later one counts anew"
    await worker.revocations.close()


async def test_one_that_was_written_a_little_late_is_found(private_redis: RedisServer) -> None:
    """Whoever revokes asks Redis for the time, and writes then: another may have been quicker."""
    worker = Worker(private_redis.url)
    async with Redis(port=private_redis.port) as redis:
        await redis.zadd("p:gateway:revoked", {"quick": time.time()})
        await worker.revocations.read()
        await redis.zadd("p:gateway:revoked", {"late": time.time() - 9, "much too late": time.time() - 12})
        await worker.revocations.read()
    assert worker.told == ["quick", "late"]
    await worker.revocations.close()


async def test_a_time_never_goes_back(private_redis: RedisServer) -> None:
    worker = Worker(private_redis.url)
    async with Redis(port=private_redis.port) as redis:
        later = time.time() + 60
        await redis.zadd("p:gateway:revoked", {"alice": later})
        await worker.revocations.revoke("alice")
        assert await redis.zscore("p:gateway:revoked", "alice") == pytest.approx(later)
    await worker.revocations.close()


async def test_they_are_kept_for_as_long_as_is_said(private_redis: RedisServer) -> None:
    worker = Worker(private_redis.url, revocation_age=100)
    async with Redis(port=private_redis.port) as redis:
        now = time.time()
        await redis.zadd("p:gateway:revoked", {"old": now - 101, "young": now - 90})
        await worker.revocations.read()
        assert worker.revocations.is_revoked("old", None), "still, because nothing newer is known"
        await worker.revocations.revoke("alice")
        assert await redis.zrange("p:gateway:revoked", 0, -1) == [b"young", b"alice"]
        await worker.revocations.read()
    assert not worker.revocations.is_revoked("old", None)
    assert worker.revocations.is_revoked("young", None)
    await worker.revocations.close()


async def test_odd_subjects(private_redis: RedisServer) -> None:
    worker = Worker(private_redis.url)
    for sub in ("žluť", "a b", "*", "\n"):
        await worker.revocations.revoke(sub)
    async with Redis(port=private_redis.port) as redis:
        await redis.zadd("p:gateway:revoked", {b"\xff": time.time()})
    await worker.revocations.read()
    assert all(worker.revocations.is_revoked(sub, 0.0) for sub in ("žluť", "a b", "*", "\n", "\ufffd"))
    await worker.revocations.close()


async def test_a_redis_that_is_away(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("gateway.broker.revocations._RETRY", 0.01)
    worker = Worker(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(PublishFailed):
        await worker.revocations.revoke("alice")
    reading = asyncio.create_task(worker.revocations.read())
    await asyncio.sleep(0.1)
    assert not reading.done(), "it is tried until it works: no stream may go on before"
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await worker.revocations.close()
    assert not caplog.messages


@pytest.mark.parametrize("case", ["permission", "type"])
async def test_what_does_not_pass_is_not_waited_for(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    url = private_redis.url
    if case == "permission":
        url = private_redis.limited_url(without=["zrangebyscore"])
    else:
        async with Redis(port=private_redis.port) as redis:
            await redis.set("p:gateway:revoked", "something else")
    worker = Worker(url)
    async with asyncio.timeout(10):
        await worker.revocations.read()
    assert "no grant can be revoked" in caplog.text
    await worker.revocations.close()


async def test_many_notices_are_few_readings(private_redis: RedisServer) -> None:
    worker = Worker(private_redis.url)
    readings = 0
    read = worker.revocations.read

    async def counted() -> None:
        nonlocal readings
        readings += 1
        await read()

    worker.revocations.read = counted  # type: ignore[method-assign]
    async with worker.running():
        for _ in range(100):
            worker.revocations.told(b"")
            await asyncio.sleep(0.002)
        assert 1 <= readings <= 10


def test_databases_have_channels_of_their_own() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:6379/7")
    assert revocations(settings).channel == b"gateway.revoked.7"
    assert isinstance(revocations(settings), Revocations)
