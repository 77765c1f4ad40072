"""From the costs of one delivery to what a whole installation needs."""

from dataclasses import dataclass

ENVELOPE = 50
"""Bytes an event has beside its payload: `id:`, `data:`, line ends, the chunk's size."""

PACKET = 66
"""Bytes of Ethernet, IP and TCP around each packet, which holds up to 1,448 bytes."""
_SEGMENT = 1_448


@dataclass(frozen=True)
class Costs:
    """What a machine pays, measured on it.

    Attributes:
        delivery: seconds of CPU for one event to one client, whatever its size.
        byte: seconds of CPU for each byte of it.
        message: seconds of CPU for each published message in each worker that has a listener for it.
        memory: bytes per connection of the processes.
        kernel: bytes per connection of the kernel.
    """

    delivery: float
    byte: float
    message: float
    memory: float
    kernel: float


@dataclass(frozen=True)
class Demand:
    """What is asked.

    Args:
        connections: open streams.
        rate: events per second each of them gets.
        size: bytes of a payload.
        published: messages per second that are published, over all channels.
    """

    connections: int
    rate: float
    size: int
    published: float


@dataclass(frozen=True)
class Need:
    """What it takes: cores that are busy without a pause, bytes, bits per second."""

    cores: float
    memory: float
    bandwidth: float


def need(costs: Costs, demand: Demand, workers: int = 1) -> Need:
    """The formula of docs/capacity.md."""
    deliveries = demand.connections * demand.rate
    cpu = deliveries * (costs.delivery + demand.size * costs.byte) + workers * demand.published * costs.message
    wire = demand.size + ENVELOPE
    wire += PACKET * -(-wire // _SEGMENT)
    return Need(cpu, demand.connections * (costs.memory + costs.kernel), deliveries * wire * 8)


@dataclass(frozen=True)
class Sample:
    """A measured load: what was asked, and the seconds of CPU it took per second."""

    demand: Demand
    cores: float

    @property
    def per_delivery(self) -> float:
        return self.cores / (self.demand.connections * self.demand.rate)


def fit(small: Sample, large: Sample, many: Sample, memory: float, kernel: float) -> Costs:
    """Costs from three loads: small events, large events, and many messages to few clients.

    Three unknowns and three equations; a few rounds of substitution settle them, because each of the loads is made
    of nearly nothing but the one cost it is for.
    """
    delivery = byte = message = 0.0
    for _ in range(20):
        delivery = small.per_delivery - small.demand.size * byte - message * _published_share(small)
        byte = (large.per_delivery - delivery - message * _published_share(large)) / large.demand.size
        # The deliveries of this load are joined, many to a write: what they cost is part of what a message costs.
        message = max(0.0, many.cores / many.demand.published)
    return Costs(delivery, byte, message, memory, kernel)


def _published_share(sample: Sample) -> float:
    """Published messages per delivery."""
    return sample.demand.published / (sample.demand.connections * sample.demand.rate)
