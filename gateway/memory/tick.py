"""A sign of life from Redis that carries a number of its clock."""

from collections.abc import Mapping
from typing import NamedTuple

_VERSION = b"3"


class Tick(NamedTuple):
    """What Redis publishes to all workers; see `tick` in broker/library.lua.

    Attributes:
        generation: of Redis' data.
        number: of Redis' clock.
        identity: of the server that issued it; a replica passes its master's ticks on.
        lineage: the earlier generations, and the number at which each ended.
    """

    generation: int
    number: int
    identity: str
    lineage: Mapping[int, int]


def parse_tick(payload: bytes) -> Tick | None:
    """The tick, without its signature; None if it is one of another version.

    Raises:
        ValueError: it is none.
    """
    version, _, rest = payload.partition(b" ")
    if version != _VERSION:
        return None
    generation, number, identity, lineage = rest.split(b" ", 3)
    return Tick(int(generation), int(number), identity.decode("ascii"), parse_lineage(lineage))


def parse_lineage(text: bytes) -> dict[int, int]:
    """The generations that have ended, and where, from `generation:end,…`.

    Raises:
        ValueError: it is none.
    """
    pairs = [part.partition(b":") for part in text.split(b",")] if text else []
    return {int(generation): int(end) for generation, _, end in pairs}
