"""Reading a request's body, within a limit."""

from starlette.types import Receive, Scope

from gateway.web.problem import Problem


class ClientGone(Exception):
    """The client left before its request was complete."""


async def read_body(scope: Scope, receive: Receive, max_bytes: int, setting: str) -> bytes:
    """The whole body.

    Args:
        max_bytes: more are refused, before they are read where the client says how many there are.
        setting: the name of the limit, for the error.

    Raises:
        Problem: 413, larger than allowed.
        ClientGone: nobody is left to answer.
    """
    too_large = Problem(
        413,
        f"The body is larger than {max_bytes} bytes (setting {setting}).",
        # What the client still sends is not read, so the connection can't be used again.
        {"Connection": "close"},
    )
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > max_bytes:
            raise too_large
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise too_large
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
