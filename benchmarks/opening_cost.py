"""What it takes of Redis to open streams."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import redis

from gateway.bench.session import Target

_TICKS = re.compile(r"^gateway_ticks_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)

_OURS = frozenset(("info",))
"""What counting itself sends."""


@dataclass(frozen=True)
class OpeningCost:
    """So far, or between two moments.

    Attributes:
        commands: how often Redis has executed each command, those within functions included. One SUBSCRIBE may name
            many channels.
        ticks: how many ticks were sent; 0 of a worker that knows none.
    """

    commands: Mapping[str, int]
    ticks: int

    def since(self, before: "OpeningCost") -> "OpeningCost":
        """What came after that."""
        grown = {name: count - before.commands.get(name, 0) for name, count in self.commands.items()}
        return OpeningCost({name: count for name, count in grown.items() if count}, self.ticks - before.ticks)

    @property
    def total(self) -> int:
        """All commands."""
        return sum(self.commands.values())

    def __str__(self) -> str:
        often = sorted(self.commands.items(), key=lambda one: -one[1])
        which = ", ".join(f"{count:,} {name.upper()}" for name, count in often[:4])
        return f"{self.total:,} commands{f' ({which})' if which else ''}, {self.ticks:,} ticks"


def opening_cost(target: Target) -> OpeningCost | None:
    """As it is now; None of a server that doesn't use Redis."""
    if not target.publish_url.startswith("redis:"):
        return None
    with redis.Redis.from_url(target.publish_url, decode_responses=True) as client:
        found = client.info("commandstats")
    commands = {name.removeprefix("cmdstat_"): int(counts["calls"]) for name, counts in found.items()}
    return OpeningCost({name: count for name, count in commands.items() if name not in _OURS}, _ticks(target))


def _ticks(target: Target) -> int:
    place = urlsplit(target.url)._replace(path="/metrics", query="").geturl()
    return ticks_in(httpx.get(place, timeout=10).text)


def ticks_in(metrics: str) -> int:
    """The number of ticks in a worker's metrics; 0 if it isn't there."""
    return sum(int(float(value)) for value in _TICKS.findall(metrics))
