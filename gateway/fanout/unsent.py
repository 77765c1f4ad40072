"""The memory taken by what waits for clients: all of it together has one limit."""

from gateway.fanout.policies import Policy

_OBJECT = 115
"""Bytes that a piece takes beside its data, as tracemalloc counts them."""


class Unsent:
    """How much of one kind there is.

    Args:
        limit: bytes there may be.
        whole: what this is a part of.

    Attributes:
        bytes: how many there are.
    """

    __slots__ = ("_whole", "bytes", "limit")

    def __init__(self, limit: int, whole: "Unsent | None" = None) -> None:
        self.bytes = 0
        self.limit = limit
        self._whole = whole

    @property
    def full(self) -> bool:
        return self.bytes >= self.limit

    def grow(self, size: int) -> None:
        """So many bytes more, or less."""
        self.bytes += size
        if self._whole is not None:
            self._whole.grow(size)


class Piece:
    """Bytes that wait for clients.

    They count once, for however many clients, from now until nobody refers to the piece any more.

    Attributes:
        data: the bytes.
        events: how many events they are.
        channel: whose.
        policy: what may happen to them if they don't fit any more.
        rest: what belongs behind this, if the event is in two pieces.
    """

    __slots__ = ("_unsent", "channel", "data", "events", "policy", "rest")

    def __init__(
        self,
        unsent: Unsent,
        data: bytes,
        events: int = 0,
        channel: str = "",
        policy: Policy = "disconnect",
        rest: "Piece | None" = None,
    ) -> None:
        self._unsent = unsent
        self.data = data
        self.events = events
        self.channel = channel
        self.policy = policy
        self.rest = rest
        unsent.grow(_OBJECT + len(data))

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return len(self.data) + len(self.rest.data) if self.rest is not None else len(self.data)

    def __del__(self) -> None:
        self._unsent.grow(-_OBJECT - len(self.data))
