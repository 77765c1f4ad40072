"""How a stream's bytes are framed; streams that share an encoding share the bytes."""

import zlib
from collections.abc import Iterable
from itertools import product

from gateway.fanout.event import Event

PING = b":\n\n"

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952, 2.3: deflate, no name, no time, unknown system
_LEVEL = 6


class Encoding:
    """One way to frame events; instances are compared by identity.

    With gzip each piece is deflated by itself and ends with a full flush, so that it can be decoded the moment it
    arrives, by every client, whatever pieces it got before. A stream never ends with the trailer RFC 1952 asks for:
    its checksum would be another one for each client. Decoders take the missing trailer for the end of the
    connection, which it is.

    Attributes:
        ping: the comment that keeps an idle stream alive.
        end: what ends the stream cleanly.
        gzip: whether the stream is compressed.
    """

    __slots__ = ("_chunked", "_deflate", "_min_bytes", "_named", "end", "gzip", "ping")

    def __init__(self, chunked: bool, named: bool, deflate: "zlib._Compress | None", gzip_min_bytes: int) -> None:
        self._chunked = chunked
        self._named = named
        self.gzip = deflate is not None
        self._min_bytes = gzip_min_bytes
        self._deflate = deflate
        self.ping = self.wrap(PING)
        self.end = b"0\r\n\r\n" if chunked else b""

    def encode(self, channel: str, events: Iterable[Event]) -> bytes:
        """The events of one channel as one piece."""
        if self._named:
            return self.wrap(b"".join([event.frame_as(channel) for event in events]))
        return self.wrap(b"".join([event.frame for event in events]))

    def encode_all(self, events: Iterable[tuple[str, Event]]) -> bytes:
        """Events of several channels, each with its channel, as one piece."""
        frames = [event.frame_as(channel) if self._named else event.frame for channel, event in events]
        return self.wrap(b"".join(frames))

    def first(self, data: bytes) -> bytes:
        """`data` as what a stream begins with."""
        piece = self._compressed(data)
        return self._chunk(_GZIP_HEADER + piece if self.gzip else piece)

    def wrap(self, data: bytes) -> bytes:
        """`data` as it goes to the client, by itself."""
        return self._chunk(self._compressed(data))

    def _chunk(self, data: bytes) -> bytes:
        # RFC 9112, 7.1
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _compressed(self, data: bytes) -> bytes:
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
            (chunked, named, gzip): Encoding(chunked, named, deflate if gzip else None, gzip_min_bytes)
            for chunked, named, gzip in product((False, True), repeat=3)
        }

    def get(self, *, chunked: bool, named: bool, gzip: bool = False) -> Encoding:
        """The encoding for a stream.

        Args:
            chunked: with HTTP chunk framing, for streams written straight to a transport.
            named: events without a type of their own get their channel's name as type.
            gzip: compressed.
        """
        return self._all[chunked, named, gzip]
