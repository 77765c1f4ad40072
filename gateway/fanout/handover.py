"""What one worker tells another that starts: its recent events, so that clients can move to it.

A worker that has just subscribed knows nothing of what came before, and can't even give the next messages the ids
that the others give them, because it doesn't know their predecessors. Both travel in this form.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from gateway.fanout.history import History
from gateway.fanout.record import RecordEntry, TopicRecord, dump_part
from gateway.fanout.resume import covers, find_place
from gateway.fanout.ring import Entry, Ring, Stretch
from gateway.fanout.topic import Topic

_MAX_AGE = 60.0
"""Seconds. Who has been away for longer has not been moved by a rolling update."""
_MAX_BYTES = 8_388_608
"""Of frames in all, however much room there is; it is made in one go, while nothing else runs."""
_TOPICS_PER_PART = 200
_BYTES_PER_PART = 262_144


def export(history: History, topics: Iterable[Topic], now: float, room: int) -> list[bytes]:
    """This worker's recent events, in parts small enough to be published, as far as there is room (bytes)."""
    oldest = now - _MAX_AGE

    def records() -> Iterator[TopicRecord]:
        for topic in topics:
            if topic.is_pattern or topic.ring is None or not topic.confirmed:
                continue
            entries = topic.ring.after(-1)
            recent = [entry for entry in entries if entry.time >= oldest]
            since = entries[len(entries) - len(recent) - 1].seq if len(recent) < len(entries) else topic.ring.since
            yield _record(history, topic, since, recent)

    return _parts(records(), room)[0]


def export_after(history: History, topics: Iterable[Topic], last_event_id: str, room: int) -> list[bytes]:
    """What came after an id, on those of the topics where this worker has all of it; nothing for an unknown id, or if
    it is more than there is room for (bytes).
    """
    known = [topic for topic in topics if topic.confirmed and not topic.is_pattern]
    place = find_place(known, last_event_id)
    if place is None:
        return []
    records = (
        _record(history, topic, place.seq, topic.ring.after(place.seq))
        for topic in known
        if topic.ring is not None and covers(topic, place)
    )
    parts, complete = _parts(records, room)
    return parts if complete else []


def _parts(records: Iterable[TopicRecord], room: int) -> tuple[list[bytes], bool]:
    """Records put together, as far as they aren't too much in all, and whether that was everything."""
    parts: list[bytes] = []
    part: list[TopicRecord] = []
    part_bytes = total = 0
    complete = True
    for record in records:
        size = sum(len(entry.frame) for entry in record.entries)
        total += size
        if total > min(room, _MAX_BYTES):
            complete = False
            break
        part.append(record)
        part_bytes += size
        if len(part) >= _TOPICS_PER_PART or part_bytes > _BYTES_PER_PART:
            parts.append(dump_part(part))
            part, part_bytes = [], 0
    if part:
        parts.append(dump_part(part))
    return parts, complete


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
    history.begin()
    stretch = Stretch(history.seq)
    entries = sorted(
        ((entry, record.name) for record in main.values() for entry in record.entries), key=lambda each: each[0].seq
    )
    theirs = [entry.seq for entry, _ in entries]
    for name, record in main.items():
        wanted[name].ring = Ring(stretch.begin + bisect_right(theirs, record.since), stretch)
        history.chain(name).restore(record.chain)
    now_ms = history.now_ms()
    for place, (entry, name) in enumerate(entries, stretch.begin + 1):
        history.seq = place
        age = max(0, now_ms - entry.time_ms) / 1000
        history.put(wanted[name], Entry(place, name, entry.event(), entry.time_ms, now - age, 0))
    for answer in known[1:]:
        for name, record in answer.items():
            if wanted[name].ring is None:  # at least the ids of what comes will be those of the others
                wanted[name].ring = Ring(history.seq, stretch)
                history.chain(name).restore(record.chain)
    for topic in wanted.values():
        if topic.ring is None:
            topic.ring = Ring(history.seq, stretch)
    return {name for answer in known for name in answer}


def _record(history: History, topic: Topic, since: int, entries: Iterable[Entry]) -> TopicRecord:
    return TopicRecord(
        topic.name,
        since,
        history.chain(topic.name).saved(),
        [
            RecordEntry(
                entry.seq,
                entry.time_ms,
                entry.event.id,
                entry.event.ring_hash,
                entry.event.type,
                entry.event.durable is not None,
                entry.event.frame.decode(),
            )
            for entry in entries
        ],
    )
