"""A Redis for trying out: fakeredis' TCP server in this process. Real clients can talk to it."""

import errno
import select
import threading
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from redis.exceptions import ResponseError

from gateway.broker.sandbox import ConfinedConnection, confine

FIRST_PORT = 6379
_PORTS_TRIED = 50
_PIECE = 65_536


class EmbeddedRedis:
    """Listens on 127.0.0.1 at the first free port from 6379 on; a context manager.

    Raises:
        OSError: none of the ports is free.
        RuntimeError: this version of fakeredis lets clients run Python.
    """

    def __init__(self, first_port: int = FIRST_PORT) -> None:
        self._server = _listen(first_port)
        confine(self._server.fake_server)
        self.port = int(self._server.server_address[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._thread = threading.Thread(target=self._serve, name="embedded-redis", daemon=True)

    def __enter__(self) -> "EmbeddedRedis":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)


class _Handler(TCPFakeRequestHandler):  # type: ignore[misc]
    def setup(self) -> None:
        super().setup()
        self.current_client = self.server.clients[self.client_address] = ConfinedConnection(
            server=self.server.fake_server,
            client_info={
                "laddr": self.connection.getsockname(),
                "addr": self.connection.getpeername(),
                "fd": self.connection.fileno(),
            },
            protocol=2,
        )
        # The handler reads line by line, which takes minutes for a message of many lines, and makes the descriptor
        # non-blocking, so that a write that finds the socket's buffer full ends the connection.
        self.rfile = _PieceReader(self.connection)
        # It also closes the connection after every error reply; a real server goes on, and redis-py relies on that
        # (NOSCRIPT, then SCRIPT LOAD, on the same connection).
        self._read_reply = self.current_client.read_response
        self.current_client.read_response = self._reply_or_error
        self.writer.writer = self.wfile = _PatientWriter(self.connection)

    def _reply_or_error(self) -> Any:
        try:
            return self._read_reply()
        except ResponseError as error:
            return error


class _PieceReader:
    """Reads what is there."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def readline(self) -> bytes:
        """Some bytes; none if nothing is there or the other side has closed."""
        try:
            return bytes(self._connection.recv(_PIECE))
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """The connection is closed by its owner."""


class _PatientWriter:
    """Writes all of it, however slowly the other side reads."""

    closed = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                select.select([], [self._connection], [], 1.0)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True


def _listen(first_port: int) -> Any:
    for port in range(first_port, first_port + _PORTS_TRIED):
        try:
            server = TcpFakeServer(("127.0.0.1", port), bind_and_activate=True)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        server.RequestHandlerClass = _Handler
        server.daemon_threads = True
        return server
    raise OSError(errno.EADDRINUSE, f"no free port from {first_port} to {first_port + _PORTS_TRIED - 1}")
