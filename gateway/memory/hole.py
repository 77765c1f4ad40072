"""What a worker has not heard."""

from typing import NamedTuple

from gateway.memory.position import Position

UNKNOWN = "unknown"
"""From before this worker listened to the topic, or no longer kept: others may know it."""
LOST = "lost"
"""This worker's connection to Redis was lost meanwhile: others may have heard it."""


class Hole(NamedTuple):
    """A part of a topic's past, (position, end], of which nothing but known durable messages is here.

    Attributes:
        kind: `UNKNOWN` or `LOST` while nobody has been asked; then the reason that clients that cross it are told.
    """

    position: Position
    end: Position
    kind: str

    @property
    def askable(self) -> bool:
        """Whether somebody may still know what is missing."""
        return self.kind in (UNKNOWN, LOST)
