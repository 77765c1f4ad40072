"""Not now."""


class TurnedAway(Exception):
    """A stream can't be had just now, and can later.

    Attributes:
        reason: `draining`, `full`, `busy`, `redis_away`, `behind` or `address_limit`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
