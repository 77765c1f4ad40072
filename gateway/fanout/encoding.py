"""How a stream's bytes are framed; streams that share an encoding share the bytes."""

from collections.abc import Iterable

from gateway.fanout.event import Event

PING = b":\n\n"


class Encoding:
    """One way to frame events. There are four instances, compared by identity.

    Attributes:
        ping: the comment that keeps an idle stream alive.
        end: what ends the stream cleanly.
    """

    __slots__ = ("_chunked", "_named", "end", "ping")

    def __init__(self, chunked: bool, named: bool) -> None:
        self._chunked = chunked
        self._named = named
        self.ping = self.wrap(PING)
        self.end = b"0\r\n\r\n" if chunked else b""

    def encode(self, channel: str, events: Iterable[Event]) -> bytes:
        """The events of one channel as one piece."""
        if self._named:
            return self.wrap(b"".join([event.frame_as(channel) for event in events]))
        return self.wrap(b"".join([event.frame for event in events]))

    def frames(self, events: Iterable[tuple[str, Event]]) -> bytes:
        """Events of several channels, each with its channel, not wrapped yet."""
        return b"".join([event.frame_as(channel) if self._named else event.frame for channel, event in events])

    def wrap(self, data: bytes) -> bytes:
        """`data` as one HTTP chunk (RFC 9112, 7.1) where the stream is chunked, else as it is."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data


_ENCODINGS = {(chunked, named): Encoding(chunked, named) for chunked in (False, True) for named in (False, True)}


def encoding(*, chunked: bool, named: bool) -> Encoding:
    """The encoding for a stream.

    Args:
        chunked: with HTTP chunk framing, for streams written straight to a transport.
        named: events without a type of their own get their channel's name as type.
    """
    return _ENCODINGS[chunked, named]
