"""Durable events from before this worker listened, as Redis keeps them."""

from typing import NamedTuple, Protocol

from gateway.fanout.event import Event
from gateway.fanout.ids import DurableId


class Past(NamedTuple):
    """What Redis has of one channel after some id.

    Attributes:
        events: the events, oldest first.
        gap: why some are missing (a reason of `gateway.gap`), or None.
        pure: the channel has durable history, and as far as is known nothing but durable messages.
    """

    events: list[Event]
    gap: str | None
    pure: bool


class PastUnavailable(Exception):
    """The history could not be read; says why."""


class PastReader(Protocol):
    """Reads durable history."""

    async def after(self, channels: list[str], id_: DurableId) -> dict[str, Past]:
        """What came after an id, for each channel.

        Raises:
            PastUnavailable: Redis can't be reached or refused.
        """

    async def last(self, channels: list[str], count: int) -> dict[str, Past]:
        """The newest events of each channel.

        Raises:
            PastUnavailable: Redis can't be reached or refused.
        """
