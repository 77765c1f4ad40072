"""The portable path: the same stream on any ASGI server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import anyio
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.web.torn import tear


class PortableStream(EventSourceResponse):
    """Drains a subscriber's queue into an ASGI response.

    Args:
        first: bytes to begin with.
        headers: the response's headers.
        on_exit: called when the server is about to exit, to end the stream; None where the server itself ends its
            streams.
        on_abort: called before the response is given up; None where the server can only be left to notice.
        on_tear: called to break the connection where the response would end; None where an error has to do that.
    """

    def __init__(
        self,
        members: Members,
        subscriber: Subscriber,
        first: bytes,
        headers: Mapping[str, str],
        on_exit: Callable[[Subscriber], None] | None,
        on_abort: Callable[[], None] | None,
        on_tear: Callable[[], None] | None,
    ) -> None:
        self._members = members
        self._subscriber = subscriber
        self._first = first
        self._on_exit = on_exit
        self._on_abort = on_abort
        self._on_tear = on_tear
        self._is_torn = False
        self._last: bytes | None = None
        self._wakeup = asyncio.Event()
        self._everything = anyio.CancelScope()
        super().__init__(self._pieces(), headers=headers, ping=0)
        # Meaningless in HTTP/2 and the default in HTTP/1.1, where the server sets what it needs.
        del self.headers["Connection"]
        subscriber.sink = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._everything:
                await super().__call__(scope, receive, send)
        finally:
            self._members.leave(self._subscriber, "client")
            # They refer to each other, and the tasks that were cancelled to them; without this they, and all that
            # waits, would stay until the garbage collector comes by.
            self._subscriber.sink = None
            self._subscriber.discard()
            self._on_abort = self._on_tear = None  # the connection may have another request by now

    async def _listen_for_exit_signal(self) -> None:  # type: ignore[override]
        # sse-starlette cancels a response as soon as this returns, so it never does: the stream ends by what is
        # written last. Uvicorn exits only when all its responses have ended, so they have to end before the
        # lifespan does; that a uvicorn is about to exit is what sse-starlette finds out here.
        if self._on_exit is not None:
            await EventSourceResponse._listen_for_exit_signal()
            self._on_exit(self._subscriber)
        await anyio.sleep_forever()

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self._first:  # it may all be in the queue
            yield self._first
        if self._subscriber.closed is not None:  # before the stream began
            return
        while self._last is None:
            if piece := self._subscriber.take():
                yield piece
            else:
                self._subscriber.writing = None
                self._wakeup.clear()
                await self._wakeup.wait()
        while piece := self._subscriber.take():
            yield piece
        if self._last:
            yield self._last
        if self._is_torn:
            tear(self._on_tear)
            self._everything.cancel()

    def send_rest(self, rest: bytes | memoryview) -> None:
        raise AssertionError("everything goes through the queue here")

    def wake(self) -> None:
        self._wakeup.set()

    def finish(self, last: bytes, torn: bool) -> None:
        self._last = last
        self._is_torn = torn
        self._wakeup.set()

    def abort(self) -> None:
        self._subscriber.discard()
        if self._on_abort is not None:
            self._on_abort()
        self._everything.cancel()
