"""Attacks by whoever may publish."""

import asyncio
import itertools
import random
from collections.abc import Callable

from redis.asyncio import Redis

from attacks.target import Target, get

_BATCH = 100


async def floods(target: Target) -> None:
    """10,000 messages of 200 bytes a second, on a channel with one reader."""
    _, writer = await target.connect()
    writer.write(get(["flood"]))
    await _publish(target, lambda: ("flood", "x" * 200), 10_000)


async def rejected(target: Target) -> None:
    """2,000 messages a second that can't be delivered: not UTF-8, bad envelopes, too large."""
    _, writer = await target.connect()
    writer.write(get(["rejected"]))
    bad = [
        b"\xff" * 100,
        b'{"event": 1, "data": 2}',
        b'{"event": "x", "data": "y", "id": "\\u0001"}',
        b"\x1egateway:x",
        b"x" * 1_048_577,
    ]
    await _publish(target, lambda: ("rejected", random.choices(bad, [10, 10, 10, 10, 0.1])[0]), 2000)


async def forged(target: Target) -> None:
    """2,000 messages a second that look like the gateway's own: ticks, durable messages, questions of workers."""
    numbers = itertools.count(1)
    _, writer = await target.connect()
    writer.write(get(["forged"]))

    def next_one() -> tuple[str, bytes]:
        number = next(numbers)
        huge = 10**14 + number
        question = b'["ask","forged",%d,[%b]]' % (number, b",".join([b'["news",false,1,1,0,0,9,9,0,0]'] * 100))
        return random.choice(
            [
                ("gateway.tick.0", b"3 %d %d 0123456789abcdef  %s" % (huge, huge, b"0" * 20)),
                ("forged", b"\x1egateway:%d-%010d %s\nforged" % (huge, huge, b"0" * 20)),
                ("gateway.peers.0", b"0" * 20 + b" " + question),
                ("gateway.peers.0", random.randbytes(200)),
            ]
        )

    await _publish(target, next_one, 2000)


async def _publish(target: Target, message: Callable[[], tuple[str, bytes | str]], rate: float) -> None:
    async with Redis(port=target.redis_port) as redis:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            async with redis.pipeline(transaction=False) as pipeline:
                for _ in range(_BATCH):
                    pipeline.publish(*message())
                await pipeline.execute()
            due += _BATCH / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
