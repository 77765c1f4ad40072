"""One client's side: where its bytes go, and what waits while they can't."""

from collections.abc import Callable
from typing import Protocol

from gateway.fanout.backlog import Backlog
from gateway.fanout.encodings import Encoding
from gateway.fanout.unsent import Piece
from gateway.memory.place import NO_SUFFIX, Suffix
from gateway.memory.topic import Topic

QUEUE = -1
"""What `Subscriber.send` returns when nothing may be sent now: the bytes belong into the queue."""


class Sink(Protocol):
    """The stream behind a subscriber."""

    def send_rest(self, rest: bytes | memoryview) -> None:
        """Go on where `Subscriber.send` took less than all."""

    def wake(self) -> None:
        """Something waits in the queue."""

    def finish(self, last: bytes, torn: bool) -> None:
        """End after what is queued and `last`; torn: so that the client sees that something is missing."""

    def abort(self) -> None:
        """End at once; what is queued is lost to this connection."""


class Subscriber:
    """Created queueing; its stream says how to send once the response has begun.

    Attributes:
        topics: what it listens to.
        encoding: how its bytes are framed.
        suffix: what its ids end with; few have one.
        send: takes bytes, and says how many of them have gone, as `socket.send` does: it may raise `OSError` if none
            have. `QUEUE` if the stream hasn't begun, or the client has to catch up first.
        sink: the stream, once there is one.
        backlog: what waits; None while nothing does, which is almost always.
        writing: what was given to the transport last, if it may hold some of it.
        closed: why it left, or None.
        ping_slot: where the pinger keeps it.
        left_at: the id from which it goes on, while the connection to Redis is lost; None while it hears everything,
            or hasn't begun.
    """

    __slots__ = (
        "backlog",
        "closed",
        "encoding",
        "left_at",
        "ping_slot",
        "send",
        "sink",
        "suffix",
        "topics",
        "writing",
    )

    def __init__(self, topics: tuple[Topic, ...], encoding: Encoding, suffix: Suffix = NO_SUFFIX) -> None:
        self.topics = topics
        self.encoding = encoding
        self.suffix = suffix
        self.send: Callable[[bytes], int] = queue
        self.sink: Sink | None = None
        self.backlog: Backlog | None = None
        self.closed: str | None = None
        self.ping_slot: set[Subscriber] | None = None
        self.left_at: str | None = None
        self.writing: Piece | None = None

    @property
    def shares_ids(self) -> bool:
        """Whether its ids are those of all streams of its topic: they say nothing of other topics, or whose it is."""
        return len(self.topics) == 1 and not self.suffix.proof

    @property
    def behind(self) -> int:
        """Bytes that wait, as if none of them were shared."""
        waiting = self.backlog.bytes if self.backlog is not None else 0
        return waiting + len(self.writing.data) if self.writing is not None else waiting

    def take(self) -> bytes:
        """The next piece of what waits; empty if nothing does."""
        if self.backlog is None:
            return b""
        self.writing = self.backlog.take(self.encoding)
        if not self.backlog:
            self.backlog = None
        return self.writing.data

    def discard(self) -> None:
        """Give up what waits."""
        self.backlog = self.writing = None


def queue(_: bytes) -> int:
    """The `send` of a subscriber that can't be sent anything now."""
    return QUEUE


def gone(piece: bytes) -> int:
    """The `send` of a subscriber that has left: there is nobody left to send to."""
    return len(piece)
