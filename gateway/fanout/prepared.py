"""Long replays, encoded: shared by the streams that begin with them, and limited together."""

import weakref
from collections.abc import Iterator


class ReplayRoom:
    """How many bytes of long replays there may be in memory.

    Attributes:
        bytes: how many there are; each replay counts once, from its first piece until the last stream has sent it.
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        self.limit = limit

    @property
    def full(self) -> bool:
        return self.bytes >= self.limit


class Prepared:
    """A replay up to some moment.

    Attributes:
        events: how many, gaps included.
        gaps: the reasons of those that are gaps.
        left_at: the id of a stream that has had it, from which it goes on.
    """

    __slots__ = ("__weakref__", "_pieces", "_size", "events", "gaps", "left_at")

    def __init__(self, room: ReplayRoom, left_at: str) -> None:
        self._pieces: list[bytes] = []
        self._size = _Size(room)
        self.events = 0
        self.gaps: list[str] = []
        self.left_at = left_at
        weakref.finalize(self, self._size.release).atexit = False

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size.grow(len(piece))

    def pieces(self) -> Iterator[bytes]:
        """Its pieces, in order; whoever holds the iterator holds all of them."""
        yield from self._pieces


class _Size:
    """What a replay counts with; it outlives the replay to be subtracted."""

    def __init__(self, room: ReplayRoom) -> None:
        self._room = room
        self._bytes = 0

    def grow(self, size: int) -> None:
        self._bytes += size
        self._room.bytes += size

    def release(self) -> None:
        self._room.bytes -= self._bytes
        self._bytes = 0
