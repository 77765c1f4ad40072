"""Channels named by globs."""

import re
from collections.abc import Iterable

from gateway.memory.glob import compile_glob
from gateway.memory.names import covers

_GLOB = re.compile(r"[*?\[\]\\^]")


class Channels:
    """Some channels, as a grant or a setting names them: by Redis globs.

    Args:
        globs: each a name, or a pattern.
    """

    __slots__ = ("_exact", "_prefixes", "_regexes", "globs")

    def __init__(self, globs: Iterable[str] = ()) -> None:
        self.globs = tuple(globs)
        # Almost every glob is a name, or the beginning of names; a user's own are compiled at every connect.
        self._exact = frozenset(glob for glob in self.globs if not _GLOB.search(glob))
        rest = [glob for glob in self.globs if glob not in self._exact]
        self._prefixes = tuple(glob[:-1] for glob in rest if glob.endswith("*") and not _GLOB.search(glob[:-1]))
        self._regexes = [
            compile_glob(glob.encode()) for glob in rest if not (glob.endswith("*") and not _GLOB.search(glob[:-1]))
        ]

    def __bool__(self) -> bool:
        return bool(self.globs)

    def has(self, channel: str) -> bool:
        """Whether a channel is one of them."""
        return (
            channel in self._exact
            or channel.startswith(self._prefixes)
            or any(regex.fullmatch(channel.encode()) for regex in self._regexes)
        )

    def has_all_of(self, pattern: str) -> bool:
        """Whether everything that a pattern can match is among them, as far as that can be told."""
        return any(covers(glob, pattern) for glob in self.globs)

    def __repr__(self) -> str:
        return f"Channels({list(self.globs)})"


NONE = Channels()
