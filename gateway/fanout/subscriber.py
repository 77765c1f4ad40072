"""One client's side in the hub: where its bytes go, and what waits while they can't."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

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


class QueueLimits:
    """Bounds of the queue of one subscriber, shared by all."""

    __slots__ = ("bytes", "events")

    def __init__(self, events: int, bytes_: int) -> None:
        self.events = events
        self.bytes = bytes_


class Subscriber:
    """Created queueing; its stream says where to write once the response has begun.

    Attributes:
        topics: what it listens to.
        encoding: how its bytes are framed.
        queueing: bytes go to the queue, because the stream hasn't begun or its transport is full.
        write: what to call with bytes when not queueing.
        sink: the stream, once there is one.
        limits: the bounds of its queue.
        queued_events: how many events wait.
        queued_bytes: how many bytes wait.
        closed: why it left, or None.
        ping_slot: where the pinger keeps it.
    """

    __slots__ = (
        "__weakref__",
        "_queue",
        "closed",
        "encoding",
        "limits",
        "ping_slot",
        "queued_bytes",
        "queued_events",
        "queueing",
        "sink",
        "topics",
        "write",
    )

    def __init__(self, topics: tuple[Topic, ...], encoding: Encoding, limits: QueueLimits) -> None:
        self.topics = topics
        self.encoding = encoding
        self.limits = limits
        self.queueing = True
        self.write: Callable[[bytes], object] = _not_begun
        self.sink: Sink | None = None
        self.queued_events = 0
        self.queued_bytes = 0
        self.closed: str | None = None
        self.ping_slot = 0
        # An empty deque takes 600 bytes, and a client that keeps up never needs one.
        self._queue: deque[bytes] | None = None

    def enqueue(self, piece: bytes, events: int) -> bool:
        """Let a piece wait.

        Returns:
            False if it doesn't fit. An empty queue takes any piece: pieces are as large as what Redis sent at
            once, and a client that was waiting for nothing is not slow.
        """
        if self._queue:
            if self.queued_events + events > self.limits.events or self.queued_bytes + len(piece) > self.limits.bytes:
                return False
            self._queue.append(piece)
        else:
            self._queue = deque((piece,))
        self.queued_events += events
        self.queued_bytes += len(piece)
        if self.sink is not None:
            self.sink.wake()
        return True

    def take(self) -> bytes:
        """All that waits, as one piece; empty if nothing does."""
        if not self._queue:
            return b""
        pieces, self._queue = self._queue, None
        self.queued_events = self.queued_bytes = 0
        return b"".join(pieces)

    def ping(self) -> None:
        """Send a comment, unless bytes are under way anyway."""
        if not self.queueing:
            self.write(self.encoding.ping)
        elif not self._queue:
            self.enqueue(self.encoding.ping, 0)


def _not_begun(_: bytes) -> object:
    raise RuntimeError("a subscriber was written to before its stream began")
