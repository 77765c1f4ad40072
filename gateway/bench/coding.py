"""From the bytes of a response's body to those of its events: what the content coding asks for."""

import zlib
from typing import Final, Protocol

from gateway.bench.errors import ResponseError

_HEADER_BYTES = 10
_HEADER = b"\x1f\x8b\x08\0"  # RFC 1952, 2.3: deflate, and no fields beyond the ten bytes
_LAST_BLOCK = b"\x01\0\0\xff\xff"  # RFC 1951, 3.2.4: final, stored, empty


class Coding(Protocol):
    """What is known of a coding after some of its bytes; never changes, for many streams share it.

    Attributes:
        ended: whether nothing can follow.
    """

    ended: bool

    def decode(self, data: bytes) -> tuple[bytes, "Coding"]:
        """The events' bytes that can be told with this data, and what is known then."""


class _Identity:
    """No coding."""

    ended = False

    def decode(self, data: bytes) -> tuple[bytes, Coding]:
        return data, self


class _GzipHeader:
    """Before the deflated data."""

    ended = False

    def __init__(self, raw: bytes = b"") -> None:
        self._raw = raw

    def decode(self, data: bytes) -> tuple[bytes, Coding]:
        raw = self._raw + data
        if not raw.startswith(_HEADER[: len(raw)]):
            raise ResponseError("the answer says gzip and is none, or has a header of a kind that is not known here")
        if len(raw) < _HEADER_BYTES:
            return b"", _GzipHeader(raw)
        return BETWEEN_BLOCKS.decode(raw[_HEADER_BYTES:])


class _BetweenBlocks:
    """Between two blocks of deflated data, both of which end and begin with a byte.

    What follows is inflated as if nothing had been before. That gives what a browser gets or it fails: a reference
    to bytes from before is an error in a fresh inflater. So all streams that are here share one state, and a
    broadcast is inflated once for all of them.
    """

    ended = False

    def decode(self, data: bytes) -> tuple[bytes, Coding]:
        return _inflated(zlib.decompressobj(-zlib.MAX_WBITS), data) if data else (b"", self)


class _InBlock:
    """Anywhere else in deflated data."""

    def __init__(self, inflater: "zlib._Decompress") -> None:
        self._inflater = inflater
        self.ended = inflater.eof

    def decode(self, data: bytes) -> tuple[bytes, Coding]:
        return _inflated(self._inflater.copy(), data)


def _inflated(inflater: "zlib._Decompress", data: bytes) -> tuple[bytes, Coding]:
    try:
        text = inflater.decompress(data)
    except zlib.error as error:
        raise ResponseError(
            f"what was deflated can't be inflated ({error}); each part up to a flush must stand by itself"
        ) from None
    return text, BETWEEN_BLOCKS if _is_between_blocks(inflater) else _InBlock(inflater)


def _is_between_blocks(inflater: "zlib._Decompress") -> bool:
    """Only here are these bytes an empty last block: elsewhere they are content, or an error."""
    if inflater.eof:
        return False
    probe = inflater.copy()
    try:
        return not probe.decompress(_LAST_BLOCK) and probe.eof and not probe.unused_data
    except zlib.error:
        return False


IDENTITY: Final[Coding] = _Identity()
GZIP: Final[Coding] = _GzipHeader()
BETWEEN_BLOCKS: Final[Coding] = _BetweenBlocks()


def coding_named(name: bytes) -> Coding:
    """The coding that a response's Content-Encoding names.

    Raises:
        ResponseError: it isn't known.
    """
    match name:
        case b"" | b"identity":
            return IDENTITY
        case b"gzip" | b"x-gzip":
            return GZIP
    raise ResponseError(f"the content encoding {name.decode(errors='replace')!r} is not known here")
