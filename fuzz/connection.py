"""A client that sends exactly what it is told."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple

from fuzz.answers import Malformed, read_answers

_LIMIT = 1 << 20


class Sending(NamedTuple):
    """What a client does.

    Attributes:
        pieces: what it sends, each by itself.
        answers: after so many whole answers it leaves.
        ending: what it does once everything is sent: `wait`, `close` its side (the other stays open), or `reset`.
        quiet: seconds without a byte after which it leaves. If something would have come, that isn't looked at.
    """

    pieces: Sequence[bytes]
    answers: int = 1
    ending: str = "wait"
    quiet: float = 0.15


async def exchange(port: int, sending: Sending) -> bytes:
    """Everything that came in return."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
    received = bytearray()
    try:
        for piece in sending.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if sending.ending == "close":
            writer.write_eof()
        elif sending.ending == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return b""
        while not _is_enough(bytes(received), sending):
            async with asyncio.timeout(sending.quiet):
                piece = await reader.read(65_536)
            if not piece or len(received) > _LIMIT:
                break
            received += piece
    except (OSError, TimeoutError):  # closed by the other side, as it may; or quiet
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return bytes(received)


def _is_enough(data: bytes, sending: Sending) -> bool:
    try:
        found = read_answers(data)
    except Malformed:
        return True
    if not found or len(found) < sending.answers:
        return False
    last = found[-1]
    if sending.answers == 1 and last.status and sending.pieces[0].startswith(b"HEAD "):
        return True
    return last.whole or (last.is_stream and b"event: gateway.open\n" in last.body and last.body.endswith(b"\n\n"))
