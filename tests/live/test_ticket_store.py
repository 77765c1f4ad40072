"""Tickets in Redis, in this process."""

import asyncio
import itertools
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from gateway.broker.client import connection_pool
from gateway.broker.embedded import EmbeddedRedis
from gateway.broker.tickets import RedisTickets
from gateway.ports import StoredTicket, StoreFailed
from gateway.settings import Settings
from testing.process import free_port
from testing.servers import RedisServer
from testing.waiting import until

pytestmark = pytest.mark.anyio

_TIMES = itertools.count()


@asynccontextmanager
async def store(
    url: str, prefix: str = "p:", clock: Any = lambda: next(_TIMES), **more: Any
) -> AsyncIterator[RedisTickets]:
    settings = Settings(redis_url=url, channel_prefix=prefix, **more)
    async with Redis(connection_pool=connection_pool(settings, 16, 5)) as commands:
        yield RedisTickets(commands, settings, clock)
        await commands.connection_pool.disconnect()


@pytest.fixture(params=["real", "embedded"])
def url(request: pytest.FixtureRequest, private_redis: RedisServer) -> Any:
    if request.param == "real":
        yield private_redis.url
    else:
        with EmbeddedRedis(free_port()) as embedded:
            yield embedded.url


async def test_what_is_kept_is_found_by_every_worker(url: str) -> None:
    async with store(url) as one, store(url) as other, store(url, "q:") as stranger:
        await one.keep("a", b"what it is for", 60)
        assert await other.find("a") == StoredTicket(b"what it is for", None)
        assert await other.find("b") == StoredTicket(None, None)
        assert await stranger.find("a") == StoredTicket(None, None)
        assert await other.use("a", b"other's", 60)
        assert not await one.use("a", b"one's", 60)
        assert await one.find("a") == StoredTicket(None, b"other's"), "what it was for is not needed any more"
        assert await other.use("a", b"other's", 60), "the same again: its answer may have been lost"


async def test_its_clock_is_that_of_redis(url: str) -> None:
    async with store(url) as one, Redis.from_url(url) as commands:
        before, _ = await commands.time()
        at = await one.time()
        after, _ = await commands.time()
        assert before <= at < after + 1


async def test_the_first_of_many_has_it(url: str) -> None:
    async with store(url) as one, store(url) as other:
        for name in "abc":
            uses = [(one, other)[number % 2].use(name, b"%d" % number, 60) for number in range(20)]
            assert sum(await asyncio.gather(*uses)) == 1


async def test_everything_goes_by_itself(private_redis: RedisServer) -> None:
    async with store(private_redis.url) as one:
        await one.keep("a", b"x", 0.001)
        await one.keep("never", b"x", -5)
        await one.use("a", b"x", 0.001)
        await one.keep("b", b"x", 7.5)
        await one.use("c", b"x", 8.5)
        empty = StoredTicket(None, None)
        await until(lambda: _is(one, "a", empty), "it has expired")
        await until(lambda: _is(one, "never", empty), "it had expired from the beginning")
        client = cast("Any", Redis(port=private_redis.port))
        async with client:
            assert len(await client.keys("*")) == 2
            assert 7000 < await client.pttl("p:gateway:ticket:{b}") <= 7500
            assert 8000 < await client.pttl("p:gateway:ticket:{c}:used") <= 8500


async def _is(tickets: RedisTickets, name: str, expected: StoredTicket) -> bool:
    return await tickets.find(name) == expected


async def test_a_redis_that_refuses(private_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    url = private_redis.limited_url(without=["mget", "set"])
    caplog.set_level(logging.WARNING)
    now = 0.0
    async with store(url, clock=lambda: now) as one:
        for _ in range(3):
            with pytest.raises(StoreFailed, match="mget"):
                await one.find("a")
        with pytest.raises(StoreFailed, match="set"):
            await one.keep("a", b"x", 60)
        with pytest.raises(StoreFailed, match="set"):
            await one.use("a", b"x", 60)
        assert len(caplog.records) == 1
        now = 10.0
        with pytest.raises(StoreFailed):
            await one.find("a")
        assert "(4 more like this before)" in caplog.text


async def test_a_redis_that_is_away(private_redis: RedisServer) -> None:
    async with store(private_redis.url) as one:
        await one.keep("a", b"x", 60)
        private_redis.stop()
        for question in (one.find("a"), one.keep("a", b"x", 60), one.use("a", b"x", 60)):
            with pytest.raises(StoreFailed):
                await question


async def test_so_many_questions_at_once(private_redis: RedisServer) -> None:
    """The others' connections stay free: anybody can make up tickets."""
    async with store(private_redis.url) as one:
        pool: Any = cast("Any", one)._commands.connection_pool
        most = 0

        async def ask(number: int) -> None:
            nonlocal most
            await one.find(str(number))
            most = max(most, len(pool._in_use_connections))

        await asyncio.gather(*map(ask, range(200)))
        assert most <= 8


async def test_nobody_waits_for_a_redis_that_hangs(private_redis: RedisServer) -> None:
    async with store(private_redis.url, subscribe_timeout=0.2) as one:
        private_redis.send_signal(signal.SIGSTOP)
        try:
            asked = [asyncio.create_task(one.find(str(number))) for number in range(1000)]
            await asyncio.sleep(0)
            with pytest.raises(StoreFailed, match="too many"):
                await one.find("one too many")
            assert all(isinstance(each, StoreFailed) for each in await asyncio.gather(*asked, return_exceptions=True))
            one.is_away = lambda: True
            with pytest.raises(StoreFailed, match="can't be reached"):
                await one.find("a")
        finally:
            private_redis.send_signal(signal.SIGCONT)
        one.is_away = lambda: False
        assert await one.find("a") == StoredTicket(None, None)
