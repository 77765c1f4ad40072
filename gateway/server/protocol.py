"""uvicorn's HTTP protocol, extended so that a stream can take its connection over.

This reaches into uvicorn further than its public interface goes. tests/unit/test_uvicorn_contract.py holds what is
relied on, and pyproject.toml pins the minor version.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.web.direct import EXTENSION, Connection, DirectStream

MAX_HEAD_BYTES = 65_536
"""Size of a request's line and headers; llhttp itself has no limit. 100 channels of 256 bytes fit well."""


class GatewayProtocol(HttpToolsProtocol):
    """Offers `gateway.direct` with every request that could become a stream."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_open = True
        self._head_bytes = 0
        # A single header that never ends is not shown by the parser, so what was fed is counted as well.
        self._unparsed_bytes = 0
        self._unfinished: deque[RequestResponseCycle] = deque()
        self.on_gone: Callable[[], None] | None = None

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

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_open = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Also for trailers, which come after the body and go the same way.
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_open = False
        scope = self.scope
        super().on_headers_complete()
        if scope["method"] != "HEAD":
            # The task that will read this was created just now and has not run yet.
            scope["extensions"] = {EXTENSION: _Handle(self, self.cycle)}  # type: ignore[dict-item]

        self._unfinished.append(self.cycle)

    def on_response_complete(self) -> None:
        if self._unfinished:
            self._unfinished.popleft()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells the last request only, and before it may be one that is being answered.
        for cycle in self._unfinished:
            cycle.disconnected = True
            cycle.message_event.set()
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
        self.on_gone = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_open:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > MAX_HEAD_BYTES:
                self._refuse_head()
        else:
            self._unparsed_bytes = 0

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: whoever asks for a WebSocket gets an answer over HTTP, and must not fill the log."""


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
        return self._protocol.transport.is_closing()

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

    def hand_over(self, stream: DirectStream) -> Connection:
        protocol, cycle = self._protocol, self._running()
        transport = protocol.transport
        # For uvicorn the request is answered: its task ends without complaint, and requests pipelined behind it,
        # which could never have been answered on this connection, are let go.
        cycle.response_complete = True
        cycle.message_event.set()
        protocol.server_state.total_requests += 1
        protocol._unset_keepalive_if_required()
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


_HEAD_TOO_LARGE = _error_head(431, b"The request's headers are larger than %d bytes.\n" % MAX_HEAD_BYTES)
