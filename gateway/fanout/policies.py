"""Which overflow policy applies to which channel."""

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, cast

Policy = Literal["disconnect", "drop-oldest", "latest"]
"""What happens when an event doesn't fit into a slow client's queue any more.

- `disconnect`: the client's stream is ended; it comes back, resumes, and loses nothing.
- `drop-oldest`: the oldest events go, and a `gateway.gap` takes their place.
- `latest`: of each channel only the newest event waits, from the first on; for prices and the like.
"""


class Policies:
    """The setting `overflow`.

    Args:
        entries: `policy`, or `pattern=policy`; the first pattern that matches counts, one without is for the rest.
    """

    def __init__(self, entries: tuple[str, ...]) -> None:
        rules = [entry.rpartition("=") for entry in entries]
        self._rules = [(pattern, cast(Policy, policy)) for pattern, _, policy in rules if pattern]
        defaults = [cast(Policy, policy) for pattern, _, policy in rules if not pattern]
        self._default: Policy = defaults[0] if defaults else "disconnect"
        # Asked for each channel and batch, and most channels come again.
        self.of = lru_cache(maxsize=10_000)(self._of)

    def _of(self, channel: str) -> Policy:
        """The policy for a channel."""
        return next((policy for pattern, policy in self._rules if fnmatchcase(channel, pattern)), self._default)
