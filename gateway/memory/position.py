"""Where a message stands on a topic, so that all workers give it the same position without communicating."""

from typing import NamedTuple

_END = 1 << 60


class Position(NamedTuple):
    """The newest tick, the topic's newest durable message since then, and how many messages came since the later one.

    Redis sends all its subscribers the same messages in the same order, so what is counted here is counted alike on
    every worker. Positions compare in the order of the messages, because a generation is always numbered higher than
    the one before it in its lineage.

    Attributes:
        generation: of Redis' data; a new one begins whenever Redis may have lost or replaced some (restart, failover,
            FLUSHALL).
        tick: number of the newest tick; ticks and durable messages are numbered by one clock.
        durable: number of the topic's newest durable message since that tick; 0: there was none.
        count: messages since the later of the two, delivered or rejected.
    """

    generation: int
    tick: int
    durable: int = 0
    count: int = 0  # type: ignore[assignment]  # a tuple's method of that name is of no use here

    @property
    def era(self) -> tuple[int, int]:
        """The generation and the tick."""
        return self[:2]

    @property
    def number(self) -> int:
        """The newest number of Redis' clock in it; what durable messages are stored by."""
        return self.durable or self.tick


def end_of_era(era: tuple[int, int]) -> Position:
    """After everything before the next tick."""
    return Position(*era, _END)


ZERO = Position(0, 0)
"""Before everything."""
LAST = Position(1 << 62, 0)
"""After everything."""
