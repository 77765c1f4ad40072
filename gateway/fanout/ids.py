"""Event ids a client can come back with.

Three kinds, told apart by their form:

- `1790000000123-9f3a61c2`: given by a worker to a plain message. Receipt time in ms (Redis' clock), then eight hex
  digits that all workers compute alike from the message and its two predecessors on the channel.
- `1790000000123-0`: given by Redis to a durable message; one strictly rising clock for all channels.
- anything else: the publisher's own.
"""

import re
from hashlib import blake2b
from os import urandom
from typing import NamedTuple

_DIGEST_BYTES = 8
_HASH_BYTES = 4
_RING_ID = re.compile(r"([0-9]{10,16})-([0-9a-f]{8})")
_DURABLE_ID = re.compile(r"([0-9]{10,16})-([0-9]{1,10})")


def unheard() -> bytes:
    """Stands for a predecessor that was not heard: random, so that two workers that joined at different times don't
    give different messages the same hash because neither knew what came before. What was lost in between would go
    unnoticed.
    """
    return urandom(_DIGEST_BYTES)


class DurableId(NamedTuple):
    """An id of the one clock; compares as the clock runs."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


class RingId(NamedTuple):
    """A worker's id for a plain message."""

    ms: int
    hash: str

    def __str__(self) -> str:
        return f"{self.ms}-{self.hash}"


def parse_durable(text: str) -> DurableId | None:
    """The id if it has the form of a durable one. Eight digits after the dash could be a ring id's hash: they are
    taken for one, because a clock doesn't count to ten million within a millisecond.
    """
    match = _DURABLE_ID.fullmatch(text)
    if match is None or len(match[2]) == 2 * _HASH_BYTES:
        return None
    return DurableId(int(match[1]), int(match[2]))


def parse_ring(text: str) -> RingId | None:
    match = _RING_ID.fullmatch(text)
    return RingId(int(match[1]), match[2]) if match else None


def digest(payload: bytes) -> bytes:
    """What stands for a message in the hashes of those that follow it."""
    return blake2b(payload, digest_size=_DIGEST_BYTES).digest()


def chain_hash(channel: bytes, before_last: bytes, last: bytes, this: bytes) -> str:
    """The hash of a message on a channel from the digests of its two predecessors and its own."""
    return blake2b(before_last + last + this + channel, digest_size=_HASH_BYTES).hexdigest()
