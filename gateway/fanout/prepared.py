"""Long replays, encoded: shared by the streams that begin with them."""

from collections.abc import Iterator

from gateway.fanout.unsent import Piece, Unsent


class Prepared:
    """A replay up to some moment.

    Args:
        room: the memory of all long replays together; each counts once, from its first piece until the last stream
            has sent it.
        left_at: the id of a stream that has had it, from which it goes on.

    Attributes:
        events: how many, gaps included.
        gaps: the reasons of those that are gaps.
        ends: the channels of which it says that they are over.
        left_at: as given.
    """

    __slots__ = ("__weakref__", "_pieces", "_room", "ends", "events", "gaps", "left_at")

    def __init__(self, room: Unsent, left_at: str) -> None:
        self._room = room
        self._pieces: list[Piece] = []
        self.events = 0
        self.gaps: list[str] = []
        self.ends: frozenset[str] = frozenset()
        self.left_at = left_at

    def add(self, piece: bytes) -> None:
        self._pieces.append(Piece(self._room, piece))

    def pieces(self) -> Iterator[Piece]:
        """Its pieces, in order; whoever holds the iterator holds all of them."""
        yield from self._pieces
