"""Attacks by whoever has no token, or none that is good for anything."""

import asyncio
import base64
import contextlib
import itertools
import json
import random
import re
import time
from collections.abc import Callable

from attacks.guards import token
from attacks.target import Target, each, get

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n")


async def bad(target: Target) -> None:
    """Bad tokens, as fast as 200 connections can send them: of another secret, expired, random text, 8 kB of it."""
    expired = token("*", -3600)
    kinds: list[Callable[[], str]] = [
        lambda: _forged("HS256", 32),
        lambda: expired,
        lambda: random.randbytes(40).hex(),
        lambda: random.randbytes(4096).hex(),
    ]
    await _flood(target, 200, lambda: random.choice(kinds)())


async def unknown_keys(target: Target) -> None:
    """RS256 tokens that name keys which the key set doesn't have, 20 at a time, each on a connection of its own."""
    await _flood(target, 20, lambda: _forged("RS256", 256, kid=random.randbytes(8).hex()))


async def signatures(target: Target) -> None:
    """RS256 and ES256 tokens on 200 connections, each with another signature, which two keys have to verify."""
    await _flood(target, 200, lambda: random.choice([_forged("RS256", 256), _forged("ES256", 64)]))


async def cookies(target: Target) -> None:
    """1,500 clients, each time with another cookie of 1 kB; the backend never answers, and they come back in 2 s."""
    numbers = itertools.count()

    async def ask() -> None:
        await target.ask(get(["closed"], headers=[f"Cookie: session={next(numbers)}{'x' * 1000}"]))
        await asyncio.sleep(random.uniform(1, 2))

    await each(1500, ask)


async def _flood(target: Target, connections: int, make: Callable[[], str]) -> None:
    """A token after the other, on so many connections, each of which is used for as long as it lasts."""

    async def ask() -> None:
        reader, writer = await target.connect()
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                writer.write(get(["closed"], headers=[f"Authorization: Bearer {make()}"]))
                length = _LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
                if length is None:
                    return  # told to come back
                await reader.readexactly(int(length[1]))

    await each(connections, ask)


def _forged(algorithm: str, size: int, **header: str) -> str:
    """A token with random bytes, so many, for a signature."""
    claims = {"sub": random.randbytes(8).hex(), "exp": time.time() + 3600, "gateway": {"subscribe": ["*"]}}
    parts = [json.dumps({"alg": algorithm, **header}).encode(), json.dumps(claims).encode()]
    # A number that begins with a zero byte is less than any key, as a signature of RSA must be.
    signature = b"\0" + random.randbytes(size - 1)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in [*parts, signature])
