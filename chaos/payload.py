"""What is published: which message of which channel it is, and when it was sent."""

import re
from typing import NamedTuple

SAME = b"always the same"
"""A message like any other of its kind, to be told from them by nothing but its place."""


class Payload(NamedTuple):
    """The head of a message; the rest is filling.

    Attributes:
        channel: where it was published.
        number: counts the messages of its channel.
        sent: `time.monotonic_ns()`, which all processes of a machine share.
    """

    channel: str
    number: int
    sent: int

    def encode(self, size: int) -> bytes:
        return f"{self.channel} {self.number} {self.sent} ".encode().ljust(size, b".")

    @classmethod
    def decode(cls, data: str) -> "Payload":
        channel, number, sent, _ = data.split(" ", 3)
        return cls(channel, int(number), int(sent))


def numbers(channel: str, text: str) -> set[int]:
    """Which messages of a channel stand in a text, whatever else does."""
    return {int(found[1]) for found in re.finditer(re.escape(channel) + r" (\d+) \d+ \.", text)}
