"""What a benchmark found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.bench.latencies import Latencies

PERCENTILES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Opening:
    """How the streams came to be open.

    Args:
        streams: all that were asked for; fewer is no result but an error.
        seconds: from the first connect to the last stream's first bytes.
        memory: growth of the server's resident memory per stream in bytes; None: no process is known.
        proxy_memory: the same of what stands in front of it; None: nothing does.
        cpu: seconds the server's processes, and those in front of it, used meanwhile; None: no process is known.
    """

    streams: int
    seconds: float
    memory: float | None
    proxy_memory: float | None = None
    cpu: float | None = None

    @property
    def rate(self) -> float:
        return self.streams / self.seconds

    @property
    def cpu_per_connect(self) -> float | None:
        """Seconds."""
        return None if self.cpu is None else self.cpu / self.streams


@dataclass(frozen=True)
class Result:
    """What became of the messages of one load.

    Args:
        expected: deliveries: to each stream, what was published to its channel meanwhile.
        received: different messages that arrived, summed over the streams.
        lost: the others.
        duplicates: arrivals of a message that was there already.
        out_of_order: arrivals after a message that was published later.
        short_streams: how many streams have lost something; `short_examples` names some.
        closed: streams that ended before their time; `failures` says why.
        wire_bytes: what the readers read meanwhile, HTTP's framing included.
        unheard: messages that reached no subscriber of Redis.
        seconds: from the first publish to the last arrival.
        latencies: from publish to arrival in the reading process.
        cpu: seconds the server's processes used meanwhile; None: no process is known.
        proxy_cpu: the same of what stands in front of it; None: nothing does.
        others_share: what other processes took of the server's cores; None: the cores are not known.
        publisher_late: seconds the publisher was behind its schedule at worst.
        reader_share: the busiest reader's share of a core.
        gaps: how often a stream was told that it missed something, since the last load or since it was opened.
    """

    expected: int
    received: int
    lost: int
    duplicates: int
    out_of_order: int
    short_streams: int
    short_examples: tuple[Mapping[str, int], ...]
    closed: int
    failures: Mapping[str, int]
    wire_bytes: int
    unheard: int
    seconds: float
    latencies: Latencies = field(repr=False)
    cpu: float | None
    others_share: float | None
    publisher_late: float
    reader_share: float
    proxy_cpu: float | None = None
    gaps: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything arrived, once and in order."""
        return not (self.lost or self.duplicates or self.out_of_order)

    @property
    def deliveries_per_second(self) -> float:
        return self.received / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_delivery(self) -> float:
        return self.wire_bytes / self.received if self.received else 0.0

    @property
    def cpu_per_delivery(self) -> float | None:
        """Seconds."""
        return self.cpu / self.received if self.cpu is not None and self.received else None

    @property
    def proxy_cpu_per_delivery(self) -> float | None:
        """Seconds."""
        return self.proxy_cpu / self.received if self.proxy_cpu is not None and self.received else None

    @property
    def cpu_share(self) -> float | None:
        """Of one core."""
        return self.cpu / self.seconds if self.cpu is not None and self.seconds else None

    def latency(self, name: str) -> float:
        """Milliseconds at one of `PERCENTILES`."""
        return self.latencies.percentile(PERCENTILES[name])

    def as_json(self) -> dict[str, Any]:
        raw = ("latencies", "cpu", "proxy_cpu", "seconds")
        values = {name: value for name, value in vars(self).items() if name not in raw}
        return {
            **values,
            "complete": self.complete,
            "seconds": round(self.seconds, 3),
            "deliveries_per_second": round(self.deliveries_per_second),
            "bytes_per_delivery": round(self.bytes_per_delivery, 1),
            "latency_ms": {name: round(self.latency(name), 2) for name in PERCENTILES},
            "cpu_seconds": self.cpu,
            "cpu_share": None if self.cpu_share is None else round(self.cpu_share, 3),
            "cpu_us_per_delivery": _microseconds(self.cpu_per_delivery),
            "proxy_cpu_us_per_delivery": _microseconds(self.proxy_cpu_per_delivery),
            "others_share": None if self.others_share is None else round(self.others_share, 3),
            "publisher_late": round(self.publisher_late, 4),
            "reader_share": round(self.reader_share, 3),
        }


def opening_as_json(opening: Opening) -> dict[str, Any]:
    return {
        **asdict(opening),
        "seconds": round(opening.seconds, 3),
        "memory": None if opening.memory is None else round(opening.memory),
        "proxy_memory": None if opening.proxy_memory is None else round(opening.proxy_memory),
        "connects_per_second": round(opening.rate),
        "cpu_us_per_connect": _microseconds(opening.cpu_per_connect),
    }


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 2)
