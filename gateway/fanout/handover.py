"""What one worker tells another that starts: its recent events, so that clients can move to it.

A worker that has just subscribed knows nothing of what came before, and can't even give the next messages the ids
that the others give them, because it doesn't know their predecessors. Both travel in this form.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from gateway.fanout.event import Event
from gateway.fanout.history import History
from gateway.fanout.ids import parse_durable
from gateway.fanout.ring import Entry, Ring, Stretch
from gateway.fanout.topic import Topic

_MAX_AGE = 60.0
"""Seconds. Who has been away for longer has not been moved by a rolling update."""
_MAX_BYTES = 8_388_608
"""Of frames in all; it is made in one go, while nothing else runs."""
_TOPICS_PER_PART = 200
_BYTES_PER_PART = 262_144


class TopicRecord(NamedTuple):
    """One channel as another worker knows it.

    Attributes:
        name: the channel.
        since: place in that worker's order from which on `entries` are complete.
        chain: what the ids of the next messages depend on.
        entries: place, time in ms, id, the hash in it if a worker gave it, type, whether it is durable, frame.
    """

    name: str
    since: int
    chain: list[Any]
    entries: list[list[Any]]


def export(history: History, topics: Iterable[Topic], now: float) -> list[bytes]:
    """This worker's recent events, in parts small enough to be published."""
    parts: list[bytes] = []
    part: list[TopicRecord] = []
    part_bytes = total = 0
    for topic in topics:
        if topic.is_pattern or topic.ring is None or not topic.confirmed:
            continue
        record, size = _record(history, topic, topic.ring, now - _MAX_AGE)
        total += size
        if total > _MAX_BYTES:
            break
        part.append(record)
        part_bytes += size
        if len(part) >= _TOPICS_PER_PART or part_bytes > _BYTES_PER_PART:
            parts.append(orjson.dumps([list(record) for record in part]))
            part, part_bytes = [], 0
    if part:
        parts.append(orjson.dumps([list(record) for record in part]))
    return parts


def parse_part(part: bytes) -> list[TopicRecord]:
    """The records of a part.

    Raises:
        ValueError: it isn't one.
    """
    try:
        return [TopicRecord(*record) for record in orjson.loads(part)]
    except TypeError as error:
        raise ValueError(str(error)) from None


def take_over(
    history: History, topics: Sequence[Topic], answers: Iterable[list[TopicRecord]], now: float
) -> set[str]:
    """Take over what other workers know.

    Args:
        history: this worker's.
        topics: what it has subscribed to and delivered nothing of yet; they have a stretch of their own from here on.
        answers: the records of each of the others.
        now: event loop time.

    Returns:
        The channels that were taken over.
    """
    wanted = {topic.name: topic for topic in topics if not topic.is_pattern and topic.ring is None}
    known = [{record.name: record for record in answer if record.name in wanted} for answer in answers]
    # The events of one worker only, the one that knows most: between those of two nobody knows the order.
    known.sort(key=len, reverse=True)
    main = known[0] if known else {}
    stretch = Stretch(history.seq)
    entries = sorted(
        ((entry, record.name) for record in main.values() for entry in record.entries), key=lambda each: each[0][0]
    )
    theirs = [entry[0] for entry, _ in entries]
    for name, record in main.items():
        wanted[name].ring = Ring(stretch.begin + bisect_right(theirs, record.since), stretch)
        history.chain(name).restore(record.chain)
    now_ms = history.now_ms()
    for place, ((_, time_ms, id_, ring_hash, type_, durable, frame), name) in enumerate(entries, stretch.begin + 1):
        history.seq = place
        event = Event(frame.encode(), type_, id_, parse_durable(id_) if durable else None)
        event.ring_hash = ring_hash
        age = max(0, now_ms - time_ms) / 1000
        history.put(wanted[name], Entry(place, name, event, time_ms, now - age, 0))
    for answer in known[1:]:
        for name, record in answer.items():
            if wanted[name].ring is None:  # at least the ids of what comes will be those of the others
                wanted[name].ring = Ring(history.seq, stretch)
                history.chain(name).restore(record.chain)
    for topic in wanted.values():
        if topic.ring is None:
            topic.ring = Ring(history.seq, stretch)
    return {name for answer in known for name in answer}


def _record(history: History, topic: Topic, ring: Ring, oldest: float) -> tuple[TopicRecord, int]:
    entries: list[list[Any]] = []
    since = ring.since
    size = 0
    for entry in ring.after(-1):
        if entry.time < oldest:
            since = entry.seq
            continue
        event = entry.event
        size += len(event.frame)
        entries.append(
            [
                entry.seq,
                entry.time_ms,
                event.id,
                event.ring_hash,
                event.type,
                event.durable is not None,
                event.frame.decode(),
            ]
        )
    return TopicRecord(topic.name, since, history.chain(topic.name).saved(), entries), size
