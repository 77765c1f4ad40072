"""The loads, each with the rows it is put to."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.bench.load import Load

_PER_ROUND = 20.0
"""Seconds a round of a row takes besides publishing, generously: start, warm up, open, drain, stop."""

DRAIN_LIMIT = 20.0
"""Seconds after publishing, after which what is missing counts as lost."""


@dataclass(frozen=True)
class Scenario:
    """One load.

    Args:
        title: what it asks.
        load: streams, messages per second, seconds.
        rows: which servers it is put to.
        bystander: streams on another channel of the same server, which measure what the load does to others.
        counts_opening: whether Redis' commands and ticks are counted while the streams are opened.
    """

    title: str
    load: Load
    rows: tuple[str, ...]
    bystander: Load | None = None
    counts_opening: bool = False

    @property
    def bound(self) -> float:
        """Seconds a round of one row can take, a second time with a quarter of the load included."""
        return _PER_ROUND + 2 * (self.load.duration + DRAIN_LIMIT)


_PEERS = ("mercure", "centrifugo")
_ALL = (
    "limit", "tutorial", "portable", "direct", "nchan", *_PEERS, "direct+nginx tcp", "direct+nginx unix",
    "nchan+nginx tcp",
)  # fmt: skip
_TOKENS = ("direct token", "direct new token")
_FAST = ("limit", "direct", "nchan", *_PEERS)

SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "a": Scenario("4,000 streams, 10 messages/s", Load(4_000, 10, 5), _ALL),
        "b": Scenario(
            "10,000 streams, 5 messages/s", Load(10_000, 5, 5), ("limit", "tutorial", "direct", "nchan", *_PEERS)
        ),
        "c": Scenario("1,000 streams, 300 messages/s", Load(1_000, 300, 5), _FAST),
        "d": Scenario(
            "1,000 channels of 10 streams, 10 messages/s in all",
            Load(10_000, 10, 5, channels=1_000),
            ("direct", "nchan"),
        ),
        "e": Scenario(
            "2,000 streams that each listen to the same 100 channels, 20 messages/s in all",
            Load(2_000, 20, 5, channels=100, all_channels=True),
            ("portable", "direct"),
        ),
        "f": Scenario("500 streams, 5 messages/s of 50 kB", Load(500, 5, 5, size=50_000), _FAST),
        "g": Scenario(
            "20,000 messages/s on 20 channels of 5 streams",
            Load(100, 20_000, 5, channels=20),
            ("direct", "nchan"),
        ),
        "h": Scenario("10,000 streams that connect at once", Load(10_000, 1, 3, at_once=10_000), (*_FAST, *_TOKENS)),
        "i": Scenario(
            "10,000 streams, 5 messages/s, and beside them 10 streams of another channel that take the time",
            Load(10_000, 5, 6),
            ("direct", "nchan"),
            bystander=Load(10, 23, 6),
        ),
        "j": Scenario(
            "4,000 streams, 10 messages/s of 1 kB of JSON, with and without gzip",
            Load(4_000, 10, 5, size=1_000, varied=True),
            ("direct", "direct gzip"),
        ),
        "k": Scenario(
            "4,000 streams of a channel of their own and a shared one, 10 messages/s on the shared one, 1/s on every "
            "tenth own one",
            Load(4_000, 10, 5, own_every=10, own_rate=1),
            ("direct",),
        ),
        "l": Scenario(
            "10,000 streams that connect at once, each to a new channel",
            # Then a message for each, which shows that all of them are live.
            Load(10_000, 2_000, 5, channels=10_000, at_once=10_000),
            ("direct", "nchan"),
            counts_opening=True,
        ),
    }
)
