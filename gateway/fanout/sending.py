"""The inner loop: the same bytes to many subscribers."""

from collections.abc import Iterable
from typing import TypeAlias

from gateway.fanout.subscriber import Subscriber

Behind: TypeAlias = tuple[Subscriber, int]
"""A subscriber that didn't take a piece as a whole, and what its `send` said."""


def send_all(subscribers: Iterable[Subscriber], piece: bytes) -> list[Behind]:
    """Send a piece to each; returns those who did not take all of it.

    This is the hot path: per client and message, what stands in the loop and nothing else.
    """
    behind: list[Behind] = []
    size = len(piece)
    for subscriber in subscribers:
        try:
            taken = subscriber.send(piece)
        except OSError:  # its buffer is full, or it has gone: the transport finds out which
            taken = 0
        if taken != size:
            behind.append((subscriber, taken))
    return behind
