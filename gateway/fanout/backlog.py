"""What waits for a client that can't take it now, within bounds."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from gateway.fanout.encodings import Encoding
from gateway.memory.replay import Replayed, gap

_TAKEN = 262_144
"""Bytes given to a transport at once. What is taken is a copy, unless it is one piece; the rest is shared."""

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
        moved: something was taken since this was last set to False.
        dropped: how many events `drop-oldest` has dropped.
    """

    __slots__ = (
        "_ahead",
        "_count",
        "_dropped_channels",
        "_latest",
        "_limits",
        "_next",
        "_pieces",
        "bytes",
        "dropped",
        "events",
        "moved",
        "since",
    )

    def __init__(self, limits: QueueLimits, now: float) -> None:
        self._limits = limits
        # The replay, before everything else; not within the limits, which are for what comes meanwhile.
        self._ahead: Iterator[bytes] = iter(())
        self._next = b""
        # By a running number, in order; `_latest` has the numbers of those that the next on their channel replaces.
        self._pieces: dict[int, _Piece] = {}
        self._latest: dict[str, int] = {}
        self._count = 0
        # In the order of their first loss; a client has at most max_stream_channels, so this is bounded.
        self._dropped_channels: dict[str, None] = {}
        self.events = 0
        self.bytes = 0
        self.dropped = 0
        self.since = now
        self.moved = False

    @property
    def gaps(self) -> int:
        """How many gap events what waits begins with."""
        return len(self._dropped_channels)

    def add(self, data: bytes, events: int, channel: str, policy: Policy) -> bool:
        """Let a piece wait.

        Returns:
            False if it doesn't fit and the policy is to disconnect. An empty queue takes any piece: pieces are as
            large as what Redis sent at once, and a client that was waiting for nothing is not slow.
        """
        if policy == "latest" and (replaced := self._latest.pop(channel, None)) is not None:
            self._remove(replaced)
        while self._pieces and not self._fits(data, events):
            if policy == "disconnect" or not self._drop_oldest():
                return False
        self._count += 1
        self._pieces[self._count] = _Piece(data, events, channel, policy)
        if policy == "latest":
            self._latest[channel] = self._count
        self.events += events
        self.bytes += len(data)
        return True

    def begin_with(self, pieces: Iterator[bytes]) -> None:
        """Let a replay wait before everything else; its pieces are shared with other streams."""
        self._ahead = pieces
        self._next = next(pieces, b"")

    def take(self, encoding: Encoding) -> bytes:
        """The next piece to send; what was dropped is told as gaps, first."""
        self.moved = True
        if piece := self._next:
            self._next = next(self._ahead, b"")
            return piece
        taken: list[bytes] = []
        if self._dropped_channels:
            gaps = [Replayed(channel, gap(channel, "overflow", None), None) for channel in self._dropped_channels]
            self._dropped_channels.clear()
            taken.append(encoding.encode(gaps))
        size = 0
        while self._pieces and size < _TAKEN:
            removed = self._remove(next(iter(self._pieces)))
            if self._latest and removed.policy == "latest":
                self._latest.pop(removed.channel, None)
            taken.append(removed.data)
            size += len(removed.data)
        return b"".join(taken)

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._next or self._pieces)

    def _fits(self, data: bytes, events: int) -> bool:
        return self.events + events <= self._limits.events and self.bytes + len(data) <= self._limits.bytes

    def _drop_oldest(self) -> bool:
        """Drop the oldest piece whose own channel allows it; False if there is none."""
        oldest = next((number for number, piece in self._pieces.items() if piece.policy != "disconnect"), None)
        if oldest is None:
            return False
        piece = self._remove(oldest)
        self._latest.pop(piece.channel, None)
        self.dropped += piece.events
        if piece.channel:
            self._dropped_channels[piece.channel] = None
        return True

    def _remove(self, number: int) -> _Piece:
        piece = self._pieces.pop(number)
        self.events -= piece.events
        self.bytes -= len(piece.data)
        return piece
