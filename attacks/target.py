"""Whom an attack is aimed at."""

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class Target:
    """A worker, and the Redis it listens to.

    Attributes:
        port: of the worker, on 127.0.0.1.
        redis_port: of Redis, where the attacker may do what a publisher may.
        source: address on this machine from which the attacker connects.
    """

    port: int
    redis_port: int
    source: str = "127.6.6.6"

    async def connect(self, receive_buffer: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection.

        Args:
            receive_buffer: its size in bytes; 0: what the kernel thinks best.

        Raises:
            OSError: it was refused.
        """
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.bind((self.source, 0))
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=connection, limit=4096)

    async def ask(self, request: bytes) -> None:
        """Send a request on a connection of its own, and leave when an answer begins.

        Raises:
            OSError: the connection was refused, or cut.
        """
        reader, writer = await self.connect()
        try:
            writer.write(request)
            await writer.drain()
            await reader.read(4096)
        finally:
            writer.close()


async def each(count: int, attack: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """So many of them at a time, forever."""

    async def again() -> None:
        for pause in itertools.chain((0.0,), itertools.repeat(0.01)):
            await asyncio.sleep(pause)
            with contextlib.suppress(OSError):
                await attack()

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(again())
            if number % 100 == 99:
                await asyncio.sleep(0.05)


def get(
    channels: Sequence[str],
    *,
    patterns: Sequence[str] = (),
    history: int = 0,
    headers: Sequence[str] = (),
) -> bytes:
    """A request for a stream."""
    parameters = [("channel", name) for name in channels] + [("pattern", name) for name in patterns]
    if history:
        parameters.append(("history", str(history)))
    lines = [f"GET /events?{urlencode(parameters)} HTTP/1.1", "Host: 127.0.0.1", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def random_names(count: int) -> list[str]:
    """Channels that nobody has asked for before."""
    return [f"{random.getrandbits(64):016x}" for _ in range(count)]
