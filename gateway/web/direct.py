"""The direct path: a stream that writes shared bytes straight to its transport.

The server offers it as an ASGI extension. Once the response head has gone out, the connection is handed to a
`DirectStream`; the ASGI task ends, and with it go the parser, the scope and the request.
"""

import asyncio
import socket
from collections.abc import Callable, MutableSet
from typing import Any, Protocol

from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber, queue

EXTENSION = "gateway.direct"
"""The key in `scope["extensions"]` under which a server offers a `DirectHandle`."""


class DirectHandle(Protocol):
    """What a server offers with a request it can hand over."""

    @property
    def chunked(self) -> bool:
        """Whether the body has to be framed as HTTP chunks."""

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Have a function called if the client leaves; None: no more."""

    def prepare(self) -> None:
        """To be called before the response head is sent."""

    def take_head(self) -> bytes:
        """The response head, held back so that it goes out with what follows; untaken, `hand_over` sends it."""

    def abandon(self) -> None:
        """Cut the connection, if the client hasn't left: the request gets no answer, or none that is complete."""

    def tear(self) -> None:
        """Close the connection in the middle of the answer, once all that was written has been sent."""

    def hand_over(self, stream: "DirectStream") -> "Connection":
        """Give the connection to the stream; the request is complete for the server."""


class Connection:
    """A connection handed over.

    Attributes:
        transport: to write to.
        registry: the server's open connections; holds the stream until it is gone.
    """

    __slots__ = ("registry", "transport")

    def __init__(self, transport: asyncio.Transport, registry: MutableSet[Any]) -> None:
        self.transport = transport
        self.registry = registry


class _BorrowedSocket(socket.SocketType):
    """The socket of a transport, for sending past the transport.

    `transport.write` costs a tenth more per delivery than `send`. The descriptor stays the transport's: it is closed
    there, and never here.
    """

    __slots__ = ()

    def __del__(self) -> None:
        # The base class would close the descriptor, which may be another connection's by then.
        self.detach()


class DirectStream(asyncio.Protocol):
    """The protocol of a connection that only carries a stream.

    What the client sends on it is read and dropped: only so is the end of the connection noticed.

    Bytes go to the kernel past the transport, except while the transport holds some itself: those of the response's
    head, or what the kernel had no room for. From the first byte it holds until the last is written it says so by
    `pause_writing`, and what comes meanwhile is queued, so that nothing overtakes.
    """

    __slots__ = ("_last", "_members", "_registry", "_send", "_subscriber", "_transport")

    def __init__(self, members: Members, subscriber: Subscriber) -> None:
        self._members = members
        self._subscriber = subscriber
        self._send: Callable[[bytes], int] | None = None
        self._last: bytes | None = None
        self._transport: asyncio.Transport | None = None
        self._registry: MutableSet[Any] = set()

    def begin(self, handle: DirectHandle, first: bytes) -> None:
        """Take the connection over and send `first`, framed already, then what has queued since joining."""
        if self._subscriber.closed is None:  # else `first` isn't sent
            # In one write, which wakes the client and is the dearest system call of all that opening a stream takes.
            first = handle.take_head() + first
        connection = handle.hand_over(self)
        transport = connection.transport
        self._transport = transport
        self._registry = connection.registry
        self._registry.add(self)
        if transport.is_closing():  # the client has left; connection_lost follows
            return
        subscriber = self._subscriber
        subscriber.sink = self
        transport.set_write_buffer_limits(high=0)
        if subscriber.closed is not None:  # its queue overflowed, or a drain began, before the stream did
            subscriber.discard()  # it came after `first`, which isn't sent
            torn = subscriber.encoding.torn
            self.finish(b"" if torn else subscriber.encoding.end, torn)
            return
        transport.write(first)
        if transport.get_write_buffer_size():
            self._members.hold(subscriber, first)
        else:
            self.resume_writing()

    def pause_writing(self) -> None:
        if self._subscriber.closed is None:
            self._subscriber.send = queue

    def resume_writing(self) -> None:
        subscriber, transport = self._subscriber, self._transport
        if transport is None or (subscriber.closed is not None and self._last is None):
            return
        # One piece at a time: the transport holds it, and the rest stays where it is shared, counted and limited.
        while waiting := subscriber.take():
            transport.write(waiting)
            if transport.get_write_buffer_size():
                return
        if self._last is None:
            subscriber.writing = None
            subscriber.send = self._send or self._send_first
        else:
            transport.write(self._last)
            transport.close()

    def _send_first(self, piece: bytes) -> int:
        # Not before there is something to send: a tenth of opening a stream, at the moment when all come at once.
        assert self._transport is not None
        if self._transport.is_closing():  # connection_lost follows; there may be no descriptor any more
            return len(piece)
        self._send = self._subscriber.send = _sender(self._transport)
        return self._send(piece)

    def send_rest(self, rest: bytes | memoryview) -> None:
        if self._transport is None:
            return
        self._transport.write(rest)
        if not self._transport.get_write_buffer_size():
            self._subscriber.writing = None

    @staticmethod
    def data_received(data: bytes) -> None:
        """Nothing; static, because uvloop keeps a bound method of each protocol for it."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self._members.leave(self._subscriber, "client")
        self._subscriber.sink = None
        self._subscriber.discard()

    def wake(self) -> None:
        """What is queued is written when the transport has room again."""

    def finish(self, last: bytes, torn: bool) -> None:
        # Torn is what lacks the last chunk.
        if self._transport is None:
            return
        self._last = last
        if self._subscriber.backlog is None or not self._transport.get_write_buffer_size():
            self.resume_writing()

    def abort(self) -> None:
        # `connection_lost` comes later, and the memory may be wanted now.
        self._subscriber.discard()
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """The server shuts down (uvicorn calls this on its open connections)."""
        if self._subscriber.closed is None:
            self._members.end(self._subscriber, "shutdown")


def _sender(transport: asyncio.Transport) -> Callable[[bytes], int]:
    """What sends bytes on the connection of a transport that holds none."""
    if transport.get_extra_info("sslcontext") is None:
        # From here on `connection_lost` comes before the descriptor is closed, whatever ends the connection.
        # Type and protocol are given because the socket would ask the kernel for them, for each stream.
        file = transport.get_extra_info("socket").fileno()
        return _BorrowedSocket(-1, socket.SOCK_STREAM, 0, file).send

    def send(piece: bytes) -> int:
        transport.write(piece)
        return len(piece)

    return send
