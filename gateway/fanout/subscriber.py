"""One client's side in the hub: where its bytes go, and what waits while they can't."""

from collections.abc import Callable
from typing import Protocol

from gateway.fanout.backlog import Backlog
from gateway.fanout.encoding import Encoding
from gateway.fanout.topic import Topic


class Sink(Protocol):
    """The stream behind a subscriber."""

    def wake(self) -> None:
        """Something waits in the queue."""

    def finish(self, last: bytes) -> None:
        """End cleanly after what is queued and `last`."""

    def abort(self) -> None:
        """End at once; what is queued is lost to this connection."""


class Subscriber:
    """Created queueing; its stream says where to write once the response has begun.

    Attributes:
        topics: what it listens to.
        encoding: how its bytes are framed.
        queueing: bytes go to the backlog, because the stream hasn't begun or its transport is full.
        write: what to call with bytes when not queueing.
        sink: the stream, once there is one.
        backlog: what waits; None while nothing does, which is almost always.
        closed: why it left, or None.
        ping_slot: where the pinger keeps it.
    """

    __slots__ = ("backlog", "closed", "encoding", "ping_slot", "queueing", "sink", "topics", "write")

    def __init__(self, topics: tuple[Topic, ...], encoding: Encoding) -> None:
        self.topics = topics
        self.encoding = encoding
        self.queueing = True
        self.write: Callable[[bytes], object] = _not_begun
        self.sink: Sink | None = None
        self.backlog: Backlog | None = None
        self.closed: str | None = None
        self.ping_slot = 0

    @property
    def confirmed(self) -> bool:
        """Whether Redis has confirmed all its topics."""
        return all(topic.confirmed for topic in self.topics)

    def take(self) -> bytes:
        """All that waits, as one piece; empty if nothing does."""
        backlog, self.backlog = self.backlog, None
        return backlog.take(self.encoding) if backlog is not None else b""


def _not_begun(_: bytes) -> object:
    raise RuntimeError("a subscriber was written to before its stream began")
