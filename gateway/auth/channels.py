"""Channels named by globs."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from gateway.memory.glob import compile_glob
from gateway.memory.names import covers, has_glob_signs, literal_prefix


class Channels:
    """Some channels, as a grant or a setting names them: by Redis globs.

    Args:
        globs: each a name, or a pattern.
    """

    __slots__ = ("_exact", "_matchers", "_patterns", "_prefixes", "_regexes", "globs")

    def __init__(self, globs: Iterable[str] = ()) -> None:
        self.globs = tuple(globs)
        self._patterns = self.globs
        self._matchers: tuple[Callable[[str], bool], ...] = ()
        # Almost every glob is a name, or the beginning of names; a user's own are compiled at every connect.
        self._exact = frozenset(glob for glob in self.globs if not has_glob_signs(glob))
        prefixes = {glob: literal_prefix(glob) for glob in self.globs if glob not in self._exact}
        self._prefixes = tuple(prefix for prefix in prefixes.values() if prefix is not None)
        self._regexes = [compile_glob(glob.encode()) for glob, prefix in prefixes.items() if prefix is None]

    @classmethod
    def exactly(cls, names: Iterable[str]) -> "Channels":
        """The channels of these names, which are no globs."""
        channels = cls()
        channels.globs = tuple(names)
        channels._exact = frozenset(channels.globs)
        channels._patterns = ()
        return channels

    @classmethod
    def matching(cls, matchers: Iterable[Callable[[str], bool]]) -> "Channels":
        """The channels that any of these says belong to them."""
        channels = cls()
        channels._matchers = tuple(matchers)
        return channels

    @classmethod
    def all_of(cls, several: Sequence["Channels"]) -> "Channels":
        """Those of all of them."""
        if len(several) == 1:
            return several[0]
        channels = cls()
        channels.globs = tuple(chain.from_iterable(each.globs for each in several))
        channels._exact = frozenset(chain.from_iterable(each._exact for each in several))
        channels._prefixes = tuple(chain.from_iterable(each._prefixes for each in several))
        channels._regexes = list(chain.from_iterable(each._regexes for each in several))
        channels._patterns = tuple(chain.from_iterable(each._patterns for each in several))
        channels._matchers = tuple(chain.from_iterable(each._matchers for each in several))
        return channels

    def __bool__(self) -> bool:
        return bool(self.globs or self._matchers)

    def has(self, channel: str) -> bool:
        """Whether a channel is one of them."""
        return (
            channel in self._exact
            or channel.startswith(self._prefixes)
            or any(regex.fullmatch(channel.encode()) for regex in self._regexes)
            or any(matches(channel) for matches in self._matchers)
        )

    def has_all_of(self, pattern: str) -> bool:
        """Whether everything that a pattern can match is among them, as far as that can be told."""
        return any(covers(glob, pattern) for glob in self._patterns)

    def __repr__(self) -> str:
        return f"Channels({list(self.globs)})"


NONE = Channels()
