"""A stand-in for a worker that misbehaves as no real one would on demand."""

import contextlib
import socket
import threading
from typing import Self


class Upstream:
    """Gives every request the same raw answer, or none, and hangs up.

    Args:
        answer: what is sent.
        stays: wait for the other side to hang up instead.

    Attributes:
        requests: what was asked, as text.
        taken: how many bytes of answers the other side has taken.
        stalled: it takes no more of an answer.
    """

    def __init__(self, answer: bytes = b"", *, stays: bool = False) -> None:
        self.answer = answer
        self.stays = stays
        self.requests: list[str] = []
        self.taken = 0
        self.stalled = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._clients: list[threading.Thread] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(threading.Thread(target=self._serve, args=[connection], daemon=True))
            self._clients[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(65536)):
                    return
                data += more
            self.requests.append(data.decode())
            self._send(connection)
            while self.stays and connection.recv(65536):
                pass

    def _send(self, connection: socket.socket) -> None:
        connection.settimeout(2)
        rest = memoryview(self.answer)
        try:
            while rest:
                count = connection.send(rest)
                self.taken += count
                rest = rest[count:]
        except TimeoutError:
            self.stalled = True
        connection.settimeout(None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for client in self._clients:
            client.join()


def answer(status: str, body: str = "", kind: str = "text/plain") -> bytes:
    """Raw bytes for `Upstream`."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()
