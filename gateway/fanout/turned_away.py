"""Streams that can't be had."""


class TurnedAway(Exception):
    """A stream can't be had just now, and can later.

    Attributes:
        reason: `draining`, `full`, `busy`, `redis_away`, `behind` or `address_limit`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Over(Exception):
    """All channels of the stream are over, and its client has had all that was to come."""


class TopicRefused(Exception):
    """Redis does not let this gateway subscribe to the topic; says why."""
