"""A client of a stream that keeps every byte of it."""

import asyncio
import contextlib
import zlib
from typing import Self
from urllib.parse import urlencode

from fuzz.answers import Malformed, read_answers
from testing.reference import Reference
from testing.stream import Received
from testing.waiting import DEADLINE

_OPEN = b"\nevent: gateway.open\n"
"""In data, `data: ` would stand before it."""


class Listener:
    """One open stream; an asynchronous context manager.

    Args:
        port: of the worker.
        parameters: of the query.
        headers: further ones.
    """

    def __init__(self, port: int, parameters: list[tuple[str, str]], headers: dict[str, str] | None = None) -> None:
        self._port = port
        self._target = f"/events?{urlencode(parameters)}"
        self._headers = headers or {}
        self._received = b""
        self._taken = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        self._writer.write(f"GET {self._target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def begun(self) -> list[Received]:
        """The events up to `gateway.open`."""
        return await self.until(_OPEN)

    async def until(self, sign: bytes) -> list[Received]:
        """The events since the last call, up to one that holds a sign.

        Raises:
            Malformed: the stream is no HTTP, or has ended.
            TimeoutError: it has not come.
        """
        async with asyncio.timeout(DEADLINE):
            while not (sign in (text := self._text())[self._taken :] and text.endswith(b"\n\n")):
                piece = await self._reader.read(1 << 20)
                if not piece:
                    raise Malformed(f"the stream has ended: {self._received[-500:]!r}")
                self._received += piece
        stream = Reference(text[self._taken :])
        self._taken = len(text)
        return stream.events

    def _text(self) -> bytes:
        answers = read_answers(self._received)
        if not answers or not answers[0].status:
            return b""
        answer = answers[0]
        if answer.status != 200 or not answer.is_stream or len(answers) > 1:
            raise Malformed(f"no stream: {self._received[:500]!r}")
        if answer.headers.get("content-encoding") == "gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(answer.body)
        return answer.body
