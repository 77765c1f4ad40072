"""How a stream's bytes are framed; streams that share an encoding share the bytes."""

import zlib
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Protocol

from gateway.fanout import sse
from gateway.memory.event import Event
from gateway.memory.replay import Replayed

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952, 2.3: deflate, no name, no time, unknown system
_LEVEL = 6
_ID_LINE = len(b"id: \n")


class Encoding(Protocol):
    """One way to frame events; instances are compared by identity.

    Attributes:
        header: what a stream begins with.
        ping: what keeps an idle stream alive.
        end: what ends the stream cleanly.
        torn: whether an end after which the client is to come back breaks the connection instead.
        compressed: whether the stream is compressed with gzip.
    """

    header: bytes
    ping: bytes
    end: bytes
    torn: bool
    compressed: bool

    def encode(self, events: Iterable[Replayed]) -> bytes:
        """Events with their ids, as one piece."""

    def bodies(self, channel: str, events: Sequence[Event]) -> list[bytes]:
        """The events of one channel without their ids, to be joined with the ids of single streams."""

    def join(self, bodies: Sequence[bytes], ids: Sequence[str | None]) -> bytes:
        """Bodies, each behind an id, as one piece."""


class SseEncoding:
    """Server-Sent Events, perhaps with HTTP chunk framing, perhaps compressed.

    With gzip each piece is deflated by itself and ends with a full flush, so that it can be decoded the moment it
    arrives, by every client, whatever pieces it got before. A stream never ends with the trailer RFC 1952 asks for:
    its checksum would be another one for each client. Decoders take the missing trailer for the end of the
    connection, which it is.
    """

    __slots__ = ("_chunked", "_deflate", "_min_bytes", "_named", "compressed", "end", "header", "ping", "torn")

    def __init__(
        self,
        chunked: bool,
        named: bool,
        deflate: "zlib._Compress | None",
        gzip_min_bytes: int,
        torn: bool = False,
    ) -> None:
        self._chunked = chunked
        self.torn = torn
        self._named = named
        self.compressed = deflate is not None
        self._min_bytes = gzip_min_bytes
        self._deflate = deflate
        self.header = self._chunk(_GZIP_HEADER) if deflate is not None else b""
        self.ping = self.wrap(sse.PING)
        self.end = b"0\r\n\r\n" if chunked else b""

    def encode(self, events: Iterable[Replayed]) -> bytes:
        return self.wrap(
            b"".join(
                [
                    sse.id_line(id_) + sse.body(event, channel if self._named else None)
                    for channel, event, id_ in events
                ]
            )
        )

    def bodies(self, channel: str, events: Sequence[Event]) -> list[bytes]:
        bodies = [sse.body(event, channel if self._named else None) for event in events]
        # Compressed here, once for all, and the ids beside them.
        return [self.wrap(body) for body in bodies] if self.compressed else bodies

    def join(self, bodies: Sequence[bytes], ids: Sequence[str | None]) -> bytes:
        if self.compressed:
            return b"".join(
                [self.wrap(sse.id_line(id_)) + body if id_ else body for body, id_ in zip(bodies, ids, strict=True)]
            )
        if len(bodies) == 1 and (id_ := ids[0]):  # as mostly, and for each stream
            text, body = id_.encode(), bodies[0]
            if self._chunked:
                return b"%x\r\nid: %b\n%b\r\n" % (len(text) + len(body) + _ID_LINE, text, body)
            return b"id: %b\n%b" % (text, body)
        return self._chunk(b"".join([sse.id_line(id_) + body for body, id_ in zip(bodies, ids, strict=True)]))

    def wrap(self, data: bytes) -> bytes:
        """Text as it goes to the client."""
        return self._chunk(self._compress(data))

    def _chunk(self, data: bytes) -> bytes:
        # RFC 9112, 7.1
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _compress(self, data: bytes) -> bytes:
        if self._deflate is None:
            return data
        if len(data) < self._min_bytes:
            # A stored block (RFC 1951, 3.2.4): five bytes more, and nothing to compute.
            return b"\0%b%b%b" % (len(data).to_bytes(2, "little"), (len(data) ^ 0xFFFF).to_bytes(2, "little"), data)
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_FULL_FLUSH)


class Encodings:
    """All there are.

    Args:
        gzip_min_bytes: pieces smaller than this are not compressed in compressed streams either; at most 65,535.
    """

    def __init__(self, gzip_min_bytes: int) -> None:
        # One for all: after a full flush nothing is left of the piece before, and each takes a quarter of a megabyte.
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._all = {
            (chunked, named, gzip, torn): SseEncoding(chunked, named, deflate if gzip else None, gzip_min_bytes, torn)
            for chunked, named, gzip, torn in product((False, True), repeat=4)
        }

    def get(self, *, chunked: bool, named: bool, gzip: bool = False, torn: bool = False) -> Encoding:
        """The encoding for a stream.

        Args:
            chunked: with HTTP chunk framing, for streams written straight to a transport.
            named: events without a type of their own get their channel's name as type.
            gzip: compressed.
            torn: with ends that break the connection, where the client is to come back.
        """
        return self._all[chunked, named, gzip, torn]
