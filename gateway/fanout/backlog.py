"""What waits for a client that can't take it now, within bounds."""

from collections import deque
from typing import Literal, NamedTuple

from gateway.fanout.encoding import Encoding
from gateway.fanout.gaps import gap

Policy = Literal["disconnect", "drop-oldest", "latest"]
"""What happens when it doesn't fit any more.

- `disconnect`: the client's stream is ended; it comes back, resumes, and loses nothing.
- `drop-oldest`: the oldest events go, and a `gateway.gap` takes their place.
- `latest`: of each channel only the newest event waits, from the first on; for prices and the like.
"""


class QueueLimits:
    """Bounds of the queue of one subscriber, shared by all."""

    __slots__ = ("bytes", "events")

    def __init__(self, events: int, bytes_: int) -> None:
        self.events = events
        self.bytes = bytes_


class _Piece(NamedTuple):
    data: bytes
    events: int
    channel: str
    policy: Policy


class Backlog:
    """The queue of one subscriber; it exists only while something waits.

    Attributes:
        events: how many events wait.
        bytes: how many bytes.
        since: when the first of them began to wait (event loop time, seconds).
        dropped: how many events `drop-oldest` has dropped.
    """

    __slots__ = ("_dropped_channels", "_limits", "_pieces", "bytes", "dropped", "events", "since")

    def __init__(self, limits: QueueLimits, now: float) -> None:
        self._limits = limits
        self._pieces: deque[_Piece] = deque()
        # In the order of their first loss; a client has at most max_stream_channels, so this is bounded.
        self._dropped_channels: dict[str, None] = {}
        self.events = 0
        self.bytes = 0
        self.dropped = 0
        self.since = now

    def add(self, data: bytes, events: int, channel: str, policy: Policy) -> bool:
        """Let a piece wait.

        Returns:
            False if it doesn't fit and the policy is to disconnect. An empty queue takes any piece: pieces are as
            large as what Redis sent at once, and a client that was waiting for nothing is not slow.
        """
        if policy == "latest":
            self._remove(channel)
        while self._pieces and not self._fits(data, events):
            if policy == "disconnect" or not self._drop_oldest():
                return False
        self._pieces.append(_Piece(data, events, channel, policy))
        self.events += events
        self.bytes += len(data)
        return True

    def take(self, encoding: Encoding) -> bytes:
        """All that waits, as one piece; gaps first."""
        gaps = b"".join([gap(channel, "overflow", None).frame for channel in self._dropped_channels])
        waiting = b"".join([piece.data for piece in self._pieces])
        return encoding.wrap(gaps) + waiting if gaps else waiting

    def _fits(self, data: bytes, events: int) -> bool:
        return self.events + events <= self._limits.events and self.bytes + len(data) <= self._limits.bytes

    def _drop_oldest(self) -> bool:
        """Drop the oldest piece whose own channel allows it; False if there is none."""
        place = next((at for at, piece in enumerate(self._pieces) if piece.policy != "disconnect"), None)
        if place is None:
            return False
        oldest = self._pieces[place]
        del self._pieces[place]
        self.events -= oldest.events
        self.bytes -= len(oldest.data)
        self.dropped += oldest.events
        if oldest.channel:
            self._dropped_channels[oldest.channel] = None
        return True

    def _remove(self, channel: str) -> None:
        kept = deque(piece for piece in self._pieces if piece.channel != channel)
        if len(kept) != len(self._pieces):
            self._pieces = kept
            self.events = sum(piece.events for piece in kept)
            self.bytes = sum(len(piece.data) for piece in kept)
