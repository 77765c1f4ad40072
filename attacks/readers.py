"""Attacks by clients that ask for more than they read."""

import asyncio
import contextlib

from redis.asyncio import Redis

from attacks.target import Target, get

_CHANNELS = 20
_EVENTS = 2000
_SMALL = 4096


async def never_read(target: Target) -> None:
    """300 streams with the smallest buffers that never read, on a channel with 2 MB/s; they come back."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(300):
            tasks.create_task(_ignored(target, get(["unread"])))
        tasks.create_task(_publish(target, "unread", 20_000, 100))


async def replays_unread(target: Target) -> None:
    """300 clients that ask for everything Redis keeps of 20 channels (40 MB), and never read it."""
    await keep(target)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(300):
            tasks.create_task(_ignored(target, get(_kept(), history=9000)))


async def replays_left(target: Target) -> None:
    """Twelve requests for the same at once, whose clients disconnect; again and again."""
    await keep(target)

    async def once() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await target.connect()
                writer.write(get(_kept(), history=9000))
                await asyncio.sleep(0.2)
                writer.transport.abort()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(once())


async def keep(target: Target) -> None:
    """Have Redis keep what the replays ask for."""
    async with Redis(port=target.redis_port) as redis:
        if await redis.exists(f"gateway.stream:{_kept()[-1]}"):
            return
        for name in _kept():
            async with redis.pipeline(transaction=False) as pipeline:
                for _ in range(_EVENTS):
                    pipeline.execute_command("FCALL", "gateway_publish", 1, name, "x" * 1000)
                await pipeline.execute()


def _kept() -> list[str]:
    return [f"kept.{number}" for number in range(_CHANNELS)]


async def _ignored(target: Target, request: bytes) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await target.connect(_SMALL)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request)
            # A transport that doesn't read isn't told of the end, either.
            await asyncio.sleep(10)
            writer.transport.abort()


async def _publish(target: Target, channel: str, size: int, rate: float) -> None:
    async with Redis(port=target.redis_port) as redis:
        while True:
            await redis.publish(channel, "x" * size)
            await asyncio.sleep(1 / rate)
