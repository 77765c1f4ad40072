"""What waits for a client that can't take it now, within bounds."""

from collections.abc import Iterator

from gateway.fanout.encodings import Encoding
from gateway.fanout.unsent import Piece, Unsent
from gateway.memory.replay import Replayed, gap

_TAKEN = 65_536
"""Bytes given to a transport at once. What is taken is a copy, unless it is one piece; the rest is shared."""
_ENTRY = 65
"""Bytes that a queue takes for each piece, as tracemalloc counts them."""


class QueueLimits:
    """Bounds of the queue of one subscriber, shared by all."""

    __slots__ = ("bytes", "events")

    def __init__(self, events: int, bytes_: int) -> None:
        self.events = events
        self.bytes = bytes_


class Backlog:
    """The queue of one subscriber; it exists only while something waits.

    Args:
        limits: of what waits here.
        unsent: the memory of all queues together.
        now: event loop time, seconds.

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
        "_unsent",
        "bytes",
        "dropped",
        "events",
        "moved",
        "since",
    )

    def __init__(self, limits: QueueLimits, unsent: Unsent, now: float) -> None:
        self._limits = limits
        self._unsent = unsent
        # The replay, before everything else; not within the limits, which are for what comes meanwhile.
        self._ahead: Iterator[Piece] = iter(())
        self._next: Piece | None = None
        # By a running number, in order; `_latest` has the numbers of those that the next on their channel replaces.
        self._pieces: dict[int, Piece] = {}
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

    def add(self, piece: Piece) -> bool:
        """Let a piece wait.

        Returns:
            False if it doesn't fit and the policy is to disconnect. An empty queue takes any piece: pieces are as
            large as what Redis sent at once, and a client that was waiting for nothing is not slow.
        """
        if piece.policy == "latest" and (replaced := self._latest.pop(piece.channel, None)) is not None:
            self._remove(replaced)
        while self._pieces and not self._fits(piece):
            if piece.policy == "disconnect" or not self._drop_oldest():
                return False
        self._count += 1
        self._pieces[self._count] = piece
        if piece.policy == "latest":
            self._latest[piece.channel] = self._count
        self.events += piece.events
        self.bytes += piece.size
        self._unsent.grow(_ENTRY)
        return True

    def begin_with(self, pieces: Iterator[Piece]) -> None:
        """Let a replay wait before everything else; its pieces are shared with other streams."""
        self._ahead = pieces
        self._next = next(pieces, None)

    def take(self, encoding: Encoding) -> Piece:
        """The next piece to send; what was dropped is told as gaps, first."""
        self.moved = True
        if (ahead := self._next) is not None:
            self._next = next(self._ahead, None)
            return ahead
        taken: list[bytes] = []
        if self._dropped_channels:
            gaps = [Replayed(channel, gap(channel, "overflow", None), None) for channel in self._dropped_channels]
            self._dropped_channels.clear()
            taken.append(encoding.encode(gaps))
        size = 0
        while self._pieces and size < _TAKEN:
            number = next(iter(self._pieces))
            if taken and self._pieces[number].rest is not None:
                break
            removed = self._remove(number)
            if self._latest and removed.policy == "latest":
                self._latest.pop(removed.channel, None)
            if not taken and (removed.rest is not None or removed.size >= _TAKEN or not self._pieces):
                self._next = removed.rest
                return removed
            taken.append(removed.data)
            size += removed.size
        return Piece(self._unsent, b"".join(taken))

    def __bool__(self) -> bool:
        """Whether something waits."""
        return self._next is not None or bool(self._pieces)

    def __del__(self) -> None:
        self._unsent.grow(-_ENTRY * len(self._pieces))

    def _fits(self, piece: Piece) -> bool:
        return self.events + piece.events <= self._limits.events and self.bytes + piece.size <= self._limits.bytes

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

    def _remove(self, number: int) -> Piece:
        piece = self._pieces.pop(number)
        self.events -= piece.events
        self.bytes -= piece.size
        self._unsent.grow(-_ENTRY)
        return piece
