"""Connections for commands, while they are given up."""

import asyncio

import pytest
from redis.asyncio import Redis

from gateway.broker.client import connection_pool, disconnect_idle
from gateway.settings import Settings
from testing.servers import RedisServer

pytestmark = pytest.mark.anyio


async def test_no_command_is_lost_with_a_connection_that_is_given_up(redis_server: RedisServer) -> None:
    """Whoever came back with a made-up id failed others' messages: "Connection closed by server"."""
    pool = connection_pool(Settings(redis_url=redis_server.url), 16, 5.0)
    async with Redis(connection_pool=pool) as client:
        over = False

        async def give_up() -> None:
            while not over:
                await disconnect_idle(pool)
                await asyncio.sleep(0)

        async def publish() -> None:
            for _ in range(100):
                await client.publish("nobody", "x")
                await asyncio.sleep(0)

        giving_up = asyncio.create_task(give_up())
        try:
            await asyncio.gather(*[publish() for _ in range(8)])
        finally:
            over = True
            await giving_up
            await pool.disconnect()
