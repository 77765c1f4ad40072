"""Reading requests' bodies, within limits."""

from types import TracebackType
from typing import Self

from starlette.types import Receive, Scope

from gateway.metrics import Metrics
from gateway.web.problem import Problem


class ClientGone(Exception):
    """The client left before its request was complete."""


class NoRoom(Problem):
    """503: all bodies together are too large just now (setting `max_bodies_bytes`)."""

    def __init__(self, max_total_bytes: int) -> None:
        super().__init__(
            503,
            f"Requests with bodies of {max_total_bytes} bytes are on their way already (setting max_bodies_bytes).",
            {"Retry-After": "1"},
        )


class Body:
    """One request's body; a context manager that holds its share of all bodies' size until the request is answered.

    Args:
        max_total_bytes: limit for all bodies together.
        metrics: where their size is counted.
    """

    def __init__(self, max_total_bytes: int, metrics: Metrics) -> None:
        self._max_total_bytes = max_total_bytes
        self._metrics = metrics
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._metrics.body_bytes -= self._size
        self._size = 0

    async def read(self, scope: Scope, receive: Receive, max_bytes: int, setting: str) -> bytes:
        """The whole body.

        Args:
            max_bytes: more are refused, before they are read where the client says how many there are.
            setting: the name of that limit, for the error.

        Raises:
            Problem: 413, larger than allowed.
            NoRoom: together with all others it is larger than allowed.
            ClientGone: nobody is left to answer.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > max_bytes:
                raise _too_large(max_bytes, setting)
        # Not a list of the pieces: a client that sends two bytes at a time would make it twenty times as large.
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            self._size += len(piece)
            self._metrics.body_bytes += len(piece)
            if self._size > max_bytes:
                raise _too_large(max_bytes, setting)
            if self._metrics.body_bytes > self._max_total_bytes:
                self._metrics.bodies_refused += 1
                raise NoRoom(self._max_total_bytes)
            body += piece
            if not message.get("more_body", False):
                return bytes(body)


def _too_large(max_bytes: int, setting: str) -> Problem:
    # What the client still sends is not read, so the connection can't be used again.
    return Problem(413, f"The body is larger than {max_bytes} bytes (setting {setting}).", {"Connection": "close"})
