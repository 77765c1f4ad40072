"""One channel as another worker knows it, in the form in which it travels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from gateway.fanout.event import Event
from gateway.fanout.ids import parse_durable

_TOPIC_TYPES = (str, int)
_CHAIN_TYPES = (str, str, int, str, bool)
_ENTRY_TYPES = (int, int, str | None, str | None, str | None, bool, str)


class RecordEntry(NamedTuple):
    """An event in another worker's ring.

    Attributes:
        seq: its place in that worker's order.
        time_ms: when it was received, on Redis' clock.
        id: its id, if it has one.
        ring_hash: the hash in it, if a worker gave it.
        type: its type.
        durable: whether it is a durable one.
        frame: its bytes, as text.
    """

    seq: int
    time_ms: int
    id: str | None
    ring_hash: str | None
    type: str | None
    durable: bool
    frame: str

    def event(self) -> Event:
        durable = parse_durable(self.id) if self.durable and self.id is not None else None
        event = Event(self.frame.encode(), self.type, self.id, durable)
        event.ring_hash = self.ring_hash
        return event


class TopicRecord(NamedTuple):
    """One channel as another worker knows it.

    Attributes:
        name: the channel.
        since: place in that worker's order from which on `entries` are complete.
        chain: what the ids of the next messages depend on.
        entries: the events.
    """

    name: str
    since: int
    chain: list[Any]
    entries: list[RecordEntry]


class PeerPast(NamedTuple):
    """What another worker had of some channels after an id that this one doesn't know.

    Attributes:
        place: up to this place in this worker's order the other has heard it, too; what came later is not in it.
        records: by channel.
    """

    place: int
    records: Mapping[str, TopicRecord]


def dump_part(records: list[TopicRecord]) -> bytes:
    """Some records, to be published."""
    return orjson.dumps(
        [[name, since, chain, [list(entry) for entry in entries]] for name, since, chain, entries in records]
    )


def parse_part(part: bytes) -> list[TopicRecord]:
    """The records of a part.

    Raises:
        ValueError: it isn't one.
    """
    try:
        return [_parse_record(*values) for values in orjson.loads(part)]
    except TypeError as error:
        raise ValueError(str(error)) from None


def _parse_record(name: Any, since: Any, chain: Any, entries: Any) -> TopicRecord:
    _checked((name, since), _TOPIC_TYPES)
    _checked(chain, _CHAIN_TYPES)
    bytes.fromhex(chain[0] + chain[1])
    return TopicRecord(name, since, chain, [RecordEntry(*_checked(entry, _ENTRY_TYPES)) for entry in entries])


def _checked(values: Any, types: tuple[Any, ...]) -> Any:
    """The values if they are what they should be; anybody on this Redis could have sent them, or another version."""
    if len(values) != len(types) or not all(map(isinstance, values, types)):
        raise ValueError("it is made up in another way")
    return values
