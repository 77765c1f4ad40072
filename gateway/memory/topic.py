"""A channel, or a pattern of channels, as one worker hears it."""

from collections.abc import Iterable
from enum import Enum

from gateway.memory.place import topic_keys
from gateway.memory.position import Position
from gateway.memory.ring import Ring


class State(Enum):
    """How far a topic is on the present connection to Redis."""

    WANTED = "not asked for yet, or its answer is still to come"
    CONFIRMED = "Redis has answered the last request for it; a tick is still to come"
    OPEN = "everything published on it is heard, and counted"
    UNCOUNTED = "everything published on it is heard; Redis refuses to count"
    REFUSED = "Redis does not let this worker subscribe to it"


class Topic:
    """Its positions and its past.

    Attributes:
        name: the channel's name, or the pattern, as clients spell it.
        is_pattern: whether `name` is a pattern.
        key: what stands for it in ids.
        state: see `State`.
        refusal: why Redis refuses it; empty if it doesn't.
        ring: its recent events.
        last: the position of the newest message that was counted; None: there was none.
        lost_at: where the connection was lost, until the topic is open again; None: it wasn't.
        over: whether its end is the newest durable message; None: that isn't known on the present connection. No
            pattern is over.
    """

    __slots__ = ("is_pattern", "key", "last", "lost_at", "name", "over", "refusal", "ring", "state")

    def __init__(self, name: str, is_pattern: bool, ring: Ring) -> None:
        self.name = name
        self.is_pattern = is_pattern
        self.key, _ = topic_keys(name, is_pattern)
        self.state = State.WANTED
        self.refusal = ""
        self.ring = ring
        self.last: Position | None = None
        self.lost_at: Position | None = None
        self.over: bool | None = False if is_pattern else None

    @property
    def long_key(self) -> str:
        """What stands for it in the ids of streams in which another topic has the same `key`."""
        return topic_keys(self.name, self.is_pattern)[1]

    @property
    def heard(self) -> bool:
        """Whether everything published on it arrives."""
        return self.state is State.OPEN or self.state is State.UNCOUNTED

    def position(self, era: tuple[int, int]) -> Position:
        """Where it is now, in the present era."""
        last = self.last
        return last if last is not None and last[:2] == era else Position(*era)

    def count(self, era: tuple[int, int], durable: int) -> Position:
        """A message has come; returns its position.

        Args:
            durable: its number, or 0 for a plain one.
        """
        last = self.last
        if durable:
            self.last = Position(*era, durable, 0)
        elif last is not None and last[:2] == era:
            self.last = Position(*era, last[2], last[3] + 1)
        else:
            self.last = Position(*era, 0, 1)
        return self.last

    def __repr__(self) -> str:
        return f"<{'pattern' if self.is_pattern else 'channel'} {self.name!r}, {self.state.name}>"


def pin(topics: Iterable[Topic]) -> None:
    """Somebody waits for what came before: what comes meanwhile is kept, so that it can follow."""
    for topic in topics:
        topic.ring.pins += 1


def unpin(topics: Iterable[Topic]) -> None:
    """The opposite, once for each `pin`."""
    for topic in topics:
        topic.ring.pins -= 1
        if topic.ring.since is not None:
            topic.ring.trim()
