"""The topics of the simulated world, and which channel is heard through which."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.memory.place import topic_keys

CHANNELS = ("a.1", "a.2", "b.1", "b.2", "d.1")
PATTERNS = ("a.*", "*.2")
DECLARED = frozenset({"d.1"})
"""The setting `durable_channels`: plain messages are rejected there."""
NAMES = CHANNELS + PATTERNS


class Name(NamedTuple):
    """A topic, as clients know it."""

    text: str
    is_pattern: bool
    key: str
    long_key: str


TOPICS = {text: Name(text, text in PATTERNS, *topic_keys(text, text in PATTERNS)) for text in NAMES}


def matches(topic: str, channel: str) -> bool:
    """Whether a channel's messages are heard through a topic; not by the gateway's own glob, which is tested."""
    return fnmatchcase(channel, topic)


def overlap(one: str, other: str) -> bool:
    """Whether a channel is heard through both."""
    return any(matches(one, channel) and matches(other, channel) for channel in CHANNELS)
