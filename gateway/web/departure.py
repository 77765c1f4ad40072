"""Noticing that a client leaves before its stream has begun."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Message, Receive

from gateway.web.body import ClientGone

Result = TypeVar("Result")


class Departure:
    """Watches one request.

    `receive` is waited for by one task, which is kept: granian takes a cancelled `receive` for the client's leaving.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._leaving: asyncio.Task[None] | None = None

    async def or_result(self, work: Coroutine[None, None, Result]) -> Result:
        """The result of some work.

        Raises:
            ClientGone: the client has left before it was there; the work is cancelled.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._left())
        working = asyncio.create_task(work)
        try:
            await asyncio.wait((working, self._leaving), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientGone
        finally:
            working.cancel()

    async def receive(self) -> Message:
        """ASGI's `receive` for whoever goes on with the request."""
        if self._leaving is None:
            return await self._receive()
        await asyncio.shield(self._leaving)
        return {"type": "http.disconnect"}

    def stop(self) -> None:
        """The request is answered, or in other hands."""
        if self._leaving is not None:
            self._leaving.cancel()
            # Else its traceback would hold this, and with it the whole request, until the garbage collector comes by.
            self._leaving = None

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
