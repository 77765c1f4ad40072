"""Channels on which nothing but durable messages is delivered."""

from functools import lru_cache

from gateway.memory.glob import compile_glob
from gateway.memory.topic import Topic

_SPECIAL = frozenset("*?[]\\^")


class DurableChannels:
    """The setting `durable_channels`: plain messages are rejected there, so that durable history tells everything.

    Args:
        globs: Redis globs.
    """

    def __init__(self, globs: tuple[str, ...]) -> None:
        self._globs = globs
        self.has = lru_cache(maxsize=10_000)(self._has) if globs else _never

    def _has(self, channel: str) -> bool:
        """Whether a channel is one of them."""
        name = channel.encode()
        return any(compile_glob(glob.encode()).fullmatch(name) for glob in self._globs)

    def all_of(self, topic: Topic) -> bool:
        """Whether everything that can come on a topic is durable."""
        if not topic.is_pattern:
            return self.has(topic.name)
        return any(
            topic.name == glob
            or (glob.endswith("*") and not _SPECIAL & set(glob[:-1]) and topic.name.startswith(glob[:-1]))
            for glob in self._globs
        )


def _never(_: str) -> bool:
    return False
