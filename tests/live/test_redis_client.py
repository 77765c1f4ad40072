"""Commands to a real Redis: what an answer that is an error leaves behind."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.client import connection_pool
from gateway.settings import Settings
from testing.servers import RedisServer


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_an_error_holds_nothing_that_waited_for_the_answer(redis_server: RedisServer) -> None:
    class Replay:
        """What a request holds meanwhile."""

    async def ask(client: Redis) -> weakref.ref[Replay]:
        replay = Replay()
        with pytest.raises(ResponseError):
            await client.lpush("text", "y")
        return weakref.ref(replay)

    async def play() -> None:
        pool = connection_pool(Settings(redis_url=redis_server.url), 1, socket_timeout=5)
        client = Redis(connection_pool=pool)
        await client.set("text", "x")
        held = await ask(client)
        assert held() is None
        await pool.disconnect()

    asyncio.run(play())
