"""uvicorn's HTTP protocol, extended so that a stream can take its connection over.

This reaches into uvicorn further than its public interface goes. tests/unit/test_uvicorn_contract.py holds what is
relied on, and pyproject.toml pins the minor version.
"""

import asyncio
import re
import weakref
from collections import deque
from collections.abc import Callable, Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.metrics import Metrics
from gateway.server.deadlines import Deadlines, Limit
from gateway.web.direct import EXTENSION, Connection, DirectStream

MAX_HEAD_BYTES = 65_536
"""Size of a request's line and headers; llhttp itself has no limit. 100 channels of 256 bytes fit well."""

# Where the host of an absolute URL ends (RFC 3986, 3.2).
_END_OF_HOST = re.compile(rb"[/?#]")

_LINGER_BYTES = 1_048_576
"""What a client may still send of a body that nobody reads, before its connection is cut."""


class GatewayProtocol(HttpToolsProtocol):
    """Offers `gateway.direct` with every request that could become a stream, and ends what takes too long.

    Args:
        deadlines: of all the worker's connections.
        metrics: where connections that were closed are counted.
        streams: those of the connections that are streams.

    Attributes:
        limit: the limit that runs for this connection. None while a request is being answered: that takes as long as
            it takes.
    """

    def __init__(self, *args: Any, deadlines: Deadlines, metrics: Metrics, streams: Sized, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit: Limit | None = None
        self.on_gone: Callable[[], None] | None = None
        self.leaving = False
        self._deadlines = deadlines
        self._metrics = metrics
        self._streams = streams
        self._silent = True
        self._head_open = True
        self._head_bytes = 0
        # A single header that never ends is not shown by the parser, so what was fed is counted as well.
        self._unparsed_bytes = 0
        self._unfinished: deque[RequestResponseCycle] = deque()
        self._upload: RequestResponseCycle | None = None
        self._upload_keeps_alive = False
        self._dropped_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Not uvicorn's own: it asks a socket object for the addresses, which uvloop has to make and then keeps for as
        # long as the stream lasts. uvloop has looked them up already.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "http"
        if self.config.uds:
            self.server = (self.config.uds, None)
        else:
            self.server = _host_and_port(transport.get_extra_info("sockname"))
            self.client = _host_and_port(transport.get_extra_info("peername"))
        metrics = self._metrics
        if len(self.connections) - len(self._streams) > metrics.max_connections:
            metrics.connections_refused += 1
            if not self._deadlines.make_room():
                transport.abort()
                return
        self._deadlines.start(self, self._deadlines.head)

    # -- the parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_open = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Also for trailers, which come after the body and go the same way.
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse("head_too_large", _HEAD_TOO_LARGE)
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_open = False
        if not self.url.startswith(b"/"):
            self._take_host_from_target()
        scope = self.scope
        super().on_headers_complete()
        self.cycle.transport = _ResponseTransport(self)  # type: ignore[assignment]
        if scope["method"] != "HEAD":
            # The task that will read this was created just now and has not run yet.
            scope["extensions"] = {EXTENSION: _Handle(self, self.cycle)}  # type: ignore[dict-item]

        self._unfinished.append(self.cycle)

    def _take_host_from_target(self) -> None:
        """`GET http://host/path`: that host replaces the header's (RFC 9112, 3.2.2), which may be another one."""
        _, absolute, rest = self.url.partition(b"://")
        if absolute:
            host = _END_OF_HOST.split(rest, maxsplit=1)[0].rpartition(b"@")[2]
            self.headers[:] = [(b"host", host), *(each for each in self.headers if each[0] != b"host")]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._upload is not None:
            self._end_upload(self._upload)

    # -- the connection

    def data_received(self, data: bytes) -> None:
        if self.leaving:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        if self._head_open:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > MAX_HEAD_BYTES:
                self._refuse("head_too_large", _HEAD_TOO_LARGE)
        else:
            self._unparsed_bytes = 0
        if not self.transport.is_closing():
            self._set_limit()
        self._silent = False

    def on_response_complete(self) -> None:
        # Not uvicorn's own, which sets a timer for the next request.
        if self._unfinished:
            self._unfinished.popleft()
        self.server_state.total_requests += 1
        if self.leaving or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self._set_limit()
        else:
            head = self._head_open and self._unparsed_bytes  # some of the next one has come already
            self._deadlines.start(self, self._deadlines.head if head else self._deadlines.idle)

    def shutdown(self) -> None:
        self._upload_keeps_alive = False
        super().shutdown()
        if self.transport.is_closing():
            self._deadlines.start(self, self._deadlines.leaving)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadlines.stop(self)
        super().connection_lost(exc)
        self._tell_tasks()
        if self.on_gone is not None:
            self.on_gone()
        self._let_go()

    def _let_go(self) -> None:
        """Break the circle protocol → cycle → scope → handle → protocol, so that memory is free now and not when the
        garbage collector comes by.
        """
        self.parser = None
        self.cycle = None  # type: ignore[assignment]
        self.scope = None  # type: ignore[assignment]
        self.pipeline.clear()
        self._unfinished.clear()
        self._upload = None
        self.on_gone = None

    def _tell_tasks(self) -> None:
        """Have the tasks of unfinished requests know that the client is gone."""
        # uvicorn tells the last request only, and before it may be one that is being answered.
        for cycle in self._unfinished:
            cycle.disconnected = True
            cycle.message_event.set()

    # -- what takes too long

    def _set_limit(self) -> None:
        """Have the limit run for what the client is sending."""
        deadlines = self._deadlines
        if not self._unfinished:
            # Anything begins the next head: not only what the parser shows, or empty lines would go on forever.
            if self._silent or self.limit is not deadlines.head:
                deadlines.start(self, deadlines.head)
            return
        last = self._unfinished[-1]
        if last.more_body and self._upload is None:
            self._begin_upload(last)
        if last is self._upload is self._unfinished[0]:
            if self.limit is not deadlines.body:
                deadlines.start(self, deadlines.body)
        else:
            deadlines.stop(self)

    def _begin_upload(self, cycle: RequestResponseCycle) -> None:
        """Have the connection closed if the request is answered before its body has come, as that would be taken for
        the next request.
        """
        self._upload = cycle
        self._upload_keeps_alive = cycle.keep_alive
        cycle.keep_alive = False

    def _end_upload(self, cycle: RequestResponseCycle) -> None:
        self._upload = None
        if not cycle.response_started:
            cycle.keep_alive = self._upload_keeps_alive

    def close_after_response(self) -> None:
        """Close the connection: its last response is complete, or was given up.

        If the rest of a request's body may follow, that is read and dropped for a while: a connection closed with
        something unread is reset, and the client loses the answer.
        """
        if self.leaving or self.transport.is_closing():
            return
        if self._upload is None:
            self._close()
        else:
            self.leaving = True
            self.flow.resume_reading()
            self.transport.write_eof()
            self._deadlines.start(self, self._deadlines.leaving)

    def on_late(self, limit: Limit) -> None:
        """The client has taken too long."""
        if limit is self._deadlines.leaving:
            self.transport.abort()
        elif limit is self._deadlines.idle:
            self._close()
        elif limit is self._deadlines.head:
            self._refuse("head_timeout", b"" if self._silent else _HEAD_LATE)
        elif not self._unfinished[0].response_started:  # else a stream, which doesn't care
            self._refuse("body_timeout", _BODY_LATE)

    def send_400_response(self, msg: str) -> None:
        self._refuse("invalid", _error_head(400, f"{msg}\n".encode()))

    def _refuse(self, reason: str, answer: bytes) -> None:
        """Close the connection, with an answer unless that would stand within another one."""
        if self.transport.is_closing():
            return
        self._metrics.bad_requests[reason] += 1
        waiting = self._unfinished
        if not waiting or (len(waiting) == 1 and waiting[0].more_body and not waiting[0].response_started):
            self.transport.write(answer)
        self._tell_tasks()
        self._close()

    def _close(self) -> None:
        self.transport.close()
        # What was written last may never be read.
        self._deadlines.start(self, self._deadlines.leaving)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: whoever asks for a WebSocket gets an answer over HTTP, and must not fill the log."""


class _ResponseTransport:
    """What a request's task takes for the transport. uvicorn closes it without asking whether the client still reads
    or sends, and doesn't always say so.
    """

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: GatewayProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        self._protocol.close_after_response()


class _Handle:
    """One request that can be handed over; see `gateway.web.direct.DirectHandle`."""

    __slots__ = ("_cycle", "_head", "_protocol", "chunked")

    def __init__(self, protocol: GatewayProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        # The task that answers the request holds it; a reference back would be a circle in every request.
        self._cycle = weakref.ref(cycle)
        self._head: _Head | None = None
        self.chunked = cycle.scope["http_version"] == "1.1"

    @property
    def gone(self) -> bool:
        return self._protocol.leaving or self._protocol.transport.is_closing()

    def _running(self) -> RequestResponseCycle:
        cycle = self._cycle()
        assert cycle is not None, "used after the request was answered"
        return cycle

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        self._protocol.on_gone = on_gone
        if on_gone is not None and self.gone:
            on_gone()  # the protocol may have been told before

    def prepare(self) -> None:
        cycle = self._running()
        if not self.chunked:
            # Otherwise uvicorn announces chunks to a client that doesn't know them.
            cycle.chunked_encoding = False
        self._head = _Head(cycle.transport)
        cycle.transport = self._head  # type: ignore[assignment]

    def take_head(self) -> bytes:
        assert self._head is not None, "used before prepare"
        data, self._head.data = self._head.data, b""
        return data

    def abandon(self) -> None:
        self._running().disconnected = True
        if not self.gone:
            self._protocol.transport.abort()

    def tear(self) -> None:
        self._running().disconnected = True
        if not self.gone:
            self._protocol.transport.close()

    def hand_over(self, stream: DirectStream) -> Connection:
        protocol, cycle = self._protocol, self._running()
        transport = protocol.transport
        # For uvicorn the request is answered: its task ends without complaint, and requests pipelined behind it,
        # which could never have been answered on this connection, are let go.
        cycle.response_complete = True
        cycle.message_event.set()
        protocol.server_state.total_requests += 1
        protocol._deadlines.stop(protocol)
        protocol.connections.discard(protocol)
        protocol._let_go()
        if (head := self.take_head()) and not transport.is_closing():
            transport.write(head)
        if not cycle.disconnected:
            protocol.flow.resume_reading()
            transport.set_protocol(stream)
        else:
            # The client left while its stream was being made; nobody will tell the stream any more.
            asyncio.get_running_loop().call_soon(stream.connection_lost, None)
        return Connection(transport, protocol.connections)


class _Head:
    """Takes the transport's place in a request and holds back what is written: the response's head."""

    __slots__ = ("_transport", "data")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


def _host_and_port(address: tuple[Any, ...] | None) -> tuple[str, int] | None:
    """Without what IPv6 has behind them; None of a connection that was reset before anybody asked."""
    return (address[0], address[1]) if address else None


def _error_head(status: int, body: bytes) -> bytes:
    head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[status] + head + body


_HEAD_LATE = _error_head(408, b"The request's headers took too long (setting head_timeout).\n")
_BODY_LATE = _error_head(408, b"The request's body took too long (setting body_timeout).\n")
_HEAD_TOO_LARGE = _error_head(431, b"The request's headers are larger than %d bytes.\n" % MAX_HEAD_BYTES)
