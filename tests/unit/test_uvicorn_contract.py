"""What the direct path relies on in uvicorn, beyond its public interface.

When a new uvicorn fails here, read gateway/server/protocol.py against its httptools_impl.py before raising the pin.
"""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.metrics import Metrics
from gateway.server.deadlines import Deadlines
from gateway.server.protocol import MAX_HEAD_BYTES, GatewayProtocol
from gateway.server.server import GatewayServer
from gateway.settings import Settings
from tests.unit.transport import Transport


def gateway_protocol(*args: Any) -> GatewayProtocol:
    metrics = Metrics(max_connections=10)
    return GatewayProtocol(*args, deadlines=Deadlines(Settings()), metrics=metrics, streams=())


async def _serve(app: Any, request: bytes) -> tuple[GatewayProtocol, Transport]:
    """Feed a request to the protocol and wait until its task has ended."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    protocol = gateway_protocol(config, ServerState(), {})
    transport = Transport()
    protocol.connection_made(transport)
    protocol.data_received(request)
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    return protocol, transport


class Stream(asyncio.Protocol):
    """Takes a connection over."""

    handed: Any = None
    lost = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        handle = scope["extensions"]["gateway.direct"]
        handle.prepare()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-test", b"1")]})
        self.handed = handle.hand_over(cast(Any, self))
        self.handed.transport.write(b"BODY")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def test_the_head_goes_through_uvicorn_and_the_body_does_not() -> None:
    stream = Stream()
    protocol, transport = asyncio.run(_serve(stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nx-test: 1" in head
    assert b"\r\ntransfer-encoding: chunked" in head
    assert body == b"BODY", "uvicorn added something after the request was handed over"
    assert transport.protocol is stream
    assert not transport.closed
    assert protocol not in protocol.connections
    assert stream.handed.registry is protocol.connections
    assert protocol.limit is None
    assert protocol.timeout_keep_alive_task is None, "uvicorn would close the stream when it fires"


def test_a_head_that_was_taken_is_not_sent_by_itself() -> None:
    class Taking(Stream):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            handle = scope["extensions"]["gateway.direct"]
            handle.prepare()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            head = handle.take_head()
            handle.hand_over(cast(Any, self)).transport.write(head + b"BODY")

    _, transport = asyncio.run(_serve(Taking(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.written.endswith(b"\r\n\r\nBODY")
    assert transport.writes == 1


def test_a_request_that_fails_once_its_head_is_held_ends_the_connection() -> None:
    class Failing(Stream):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"]["gateway.direct"].prepare()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ValueError

    _, transport = asyncio.run(_serve(Failing(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert transport.closed
    assert transport.written == b""


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "unix"])
@pytest.mark.parametrize("make", [HttpToolsProtocol, gateway_protocol])
def test_addresses_are_those_of_the_sockets(
    make: Callable[..., HttpToolsProtocol], where: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "worker.sock")
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    async def ask() -> tuple[Any, Any]:
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.uds = path if where == "unix" else None
        loop = asyncio.get_running_loop()

        def protocol() -> HttpToolsProtocol:
            return make(config, ServerState(), {})

        if where == "unix":
            server: asyncio.AbstractServer = await loop.create_unix_server(protocol, path)
            reader, writer = await asyncio.open_unix_connection(path)
            expected: tuple[Any, Any] = ((path, None), None)
        else:
            server = await loop.create_server(protocol, where, 0)
            listening = server.sockets[0].getsockname()[:2]
            reader, writer = await asyncio.open_connection(*listening)
            expected = (listening, writer.get_extra_info("sockname")[:2])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 204")
        writer.close()
        server.close()
        return expected

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        expected = runner.run(ask())
    assert (scopes[0]["server"], scopes[0]["client"], scopes[0]["scheme"]) == (*expected, "http")


@pytest.mark.parametrize(("beyond", "status"), [(0, b"200"), (1, b"431")])
def test_a_head_may_be_as_large_as_the_limit(beyond: int, status: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    value = b"x" * (MAX_HEAD_BYTES - len("Hostx") - len("X-Long") + beyond)
    _, transport = asyncio.run(_serve(app, b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % value))
    assert transport.written.startswith(b"HTTP/1.1 %b " % status)


def test_http_1_0_is_not_announced_as_chunked() -> None:
    _, transport = asyncio.run(_serve(Stream(), b"GET / HTTP/1.0\r\n\r\n"))
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"\r\nconnection: close" in head
    assert body == b"BODY"


def test_head_requests_are_not_offered_the_extension() -> None:
    offered = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered.append(scope.get("extensions", {}))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    asyncio.run(_serve(app, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert offered == [{}]


def test_what_is_used_is_there() -> None:
    for name in (
        "on_message_begin",
        "on_headers_complete",
        "on_message_complete",
        "on_response_complete",
        "connection_lost",
        "data_received",
        "send_400_response",
        "shutdown",
        "_start_asgi_task",
    ):
        assert name in HttpToolsProtocol.__dict__
    assert b"200 OK" in httptools_impl.STATUS_LINE[200]
    cycle = inspect.signature(RequestResponseCycle).parameters
    assert {"scope", "transport", "message_event", "on_response"} <= cycle.keys()
    source = inspect.getsource(RequestResponseCycle)
    for attribute in (
        "self.chunked_encoding",
        "self.response_complete",
        "self.disconnected",
        "self.message_event",
        "self.more_body",
        "self.keep_alive",
        "self.transport.close()",
    ):
        assert attribute in source
    for name in ("handle_exit", "shutdown", "startup", "capture_signals"):
        assert name in uvicorn.Server.__dict__
    assert "_captured_signals" in inspect.getsource(uvicorn.Server)
    assert issubclass(GatewayServer, uvicorn.Server)
