"""A client that doesn't read."""

import socket
from types import TracebackType
from typing import Self

from testing.servers import Worker


class Slow:
    """Opens a stream and reads nothing until it is asked to.

    Args:
        worker: whose stream.
        query: what it asks for.
        headers: further lines of the request's head.
    """

    def __init__(self, worker: Worker, query: str, *headers: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", worker.port))
        lines = [f"GET /events?{query} HTTP/1.1", "Host: x", *headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def read_until(self, end: bytes) -> bytes:
        """Read on until `end` has come."""
        self._hurry()
        data = bytearray()
        while end not in data[-(1 << 21) :]:
            piece = self.socket.recv(1 << 20)
            assert piece, f"ended without {end!r}, after {data[-300:]!r}"
            data += piece
        return bytes(data)

    def read_to_the_end(self) -> bytes:
        """Everything, of a stream that was cut off or ended."""
        self._hurry()
        data = bytearray()
        try:
            while piece := self.socket.recv(1 << 20):
                data += piece
        except ConnectionResetError:
            pass
        return bytes(data)

    def _hurry(self) -> None:
        # With a window of a few kilobytes, a megabyte takes seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
