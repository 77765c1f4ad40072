"""A client of a stream that keeps every byte of it."""

import asyncio
import contextlib
import zlib
from typing import Self
from urllib.parse import urlencode

from fuzz.answers import Malformed, read_answers, take_chunks
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
        self._raw = b""
        self._text = b""
        self._begun = False
        self._inflate: zlib._Decompress | None = None

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
            while not (self._text.endswith(b"\n\n") and sign in self._text):
                piece = await self._reader.read(1 << 20)
                if not piece:
                    raise Malformed(f"the stream has ended: {self._text[-500:]!r}")
                self._raw += piece
                self._text += self._decoded()
        text, self._text = self._text, b""
        return Reference(text).events

    def _decoded(self) -> bytes:
        if not self._begun:
            answers = read_answers(self._raw)
            if not answers or not answers[0].status:
                return b""
            answer = answers[0]
            if answer.status != 200 or not answer.is_stream or answer.headers.get("transfer-encoding") != "chunked":
                raise Malformed(f"no stream: {self._raw[:500]!r}")
            self._begun = True
            self._raw = self._raw.partition(b"\r\n\r\n")[2]
            if answer.headers.get("content-encoding") == "gzip":
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        body, self._raw, ended = take_chunks(self._raw)
        if ended:
            raise Malformed("the stream has ended")
        return body if self._inflate is None else self._inflate.decompress(body)
