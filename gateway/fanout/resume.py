"""What a client gets first: what it missed, what is kept, and what it must know to be missing."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.fanout.encoding import Encoding
from gateway.fanout.event import Event
from gateway.fanout.gaps import gap
from gateway.fanout.history import History
from gateway.fanout.ids import DurableId, parse_durable
from gateway.fanout.past import Past
from gateway.fanout.record import PeerPast
from gateway.fanout.ring import Stretch
from gateway.fanout.topic import Topic

_START = DurableId(0, 0)
_SECOND_MS = 1_000
_BEFORE_ALL = 1 << 60


class Replay:
    """Events for one client, in order, each with its channel; gaps come first.

    Attributes:
        events: the events.
        gaps: how many of them are gaps.
    """

    def __init__(self, events: list[tuple[str, Event]], gaps: int) -> None:
        self.events = events
        self.gaps = gaps
        self._pieces: dict[Encoding, bytes] = {}

    def piece(self, encoding: Encoding) -> bytes:
        """Its bytes, encoded once for all clients who missed the same."""
        if not self.events:
            return b""
        piece = self._pieces.get(encoding)
        if piece is None:
            piece = self._pieces[encoding] = encoding.encode_all(self.events)
        return piece


NO_REPLAY = Replay([], 0)


class Limits(NamedTuple):
    """Of one replay."""

    events: int
    bytes: int


class Place(NamedTuple):
    """Where an event stands in the order, and in which stretch of it, if in any."""

    seq: int
    stretch: Stretch | None


class _Piece(NamedTuple):
    # Sorted by the first three: along the one clock of durable events, plain ones where they stood among them.
    clock: DurableId
    from_ring: bool
    seq: int
    channel: str
    event: Event


def channels_to_read(topics: Iterable[Topic], last_event_id: str) -> list[str]:
    """The channels for which this worker's rings can't tell what came after the id, and Redis may."""
    if parse_durable(last_event_id) is None:
        return []
    place = find_place(topics, last_event_id)
    return [topic.name for topic in topics if not topic.is_pattern and not covers(topic, place)]


def channels_to_read_last(topics: Iterable[Topic], count: int) -> list[str]:
    """The channels of which this worker has fewer than `count` events."""
    return [
        topic.name
        for topic in topics
        if not topic.is_pattern and (topic.ring is None or len(topic.ring.last(count)) < count)
    ]


def not_covered(topics: Iterable[Topic], last_event_id: str) -> list[str]:
    """The channels of which this worker can't tell all that came after an id."""
    place = find_place(topics, last_event_id)
    return [topic.name for topic in topics if not topic.is_pattern and not covers(topic, place)]


def replay_with_peers(topics: Iterable[Topic], last_event_id: str, peers: PeerPast, limits: Limits) -> Replay:
    """What came after an id that another worker knows: what that one had of it, then what this one has had since.

    Args:
        topics: the client's.
        last_event_id: where it was.
        peers: what the other worker had.
        limits: of what is sent again.
    """
    gaps: list[tuple[str, Event]] = []
    pieces: list[_Piece] = []
    for topic in topics:
        record = None if topic.is_pattern else peers.records.get(topic.name)
        clock = _START
        if record is None or topic.ring is None or topic.ring.since > peers.place:
            # Nothing of it from this worker, either: between the events of two nobody knows the order.
            gaps.append((topic.name, gap(topic.name, "not_kept", last_event_id)))
        else:
            for entry in record.entries:
                event = entry.event()
                clock = max(clock, event.durable or clock)
                # Before all places of this worker's.
                pieces.append(_Piece(clock, False, entry.seq - _BEFORE_ALL, topic.name, event))
        pieces += _from_ring(topic, peers.place, clock)
    return _in_order(pieces, gaps, limits, last_event_id)


def replay_after(
    topics: Iterable[Topic], last_event_id: str, pasts: Mapping[str, Past] | None, history: History, limits: Limits
) -> Replay:
    """What came after the id.

    Args:
        topics: the client's.
        last_event_id: where it was.
        pasts: durable history of the channels that `channels_to_read` named, read since; None: it could not be.
        history: this worker's.
        limits: of what is sent again.
    """
    place = find_place(topics, last_event_id)
    durable = parse_durable(last_event_id)
    gaps: list[tuple[str, Event]] = []
    pieces: list[_Piece] = []

    def missing(topic: Topic, reason: str) -> None:
        gaps.append((topic.name, gap(topic.name, reason, last_event_id)))

    for topic in topics:
        past = None if pasts is None else pasts.get(topic.name)
        if place is not None and covers(topic, place):
            pieces += _from_ring(topic, place.seq, _START)
        elif durable is None or topic.is_pattern:
            missing(topic, "unknown_id" if place is None else "not_kept")
            # What certainly came later needs not be missing too.
            later = _later(topic, place, last_event_id)
            if later is not None:
                pieces += _from_ring(topic, later, _START)
        elif past is None:
            missing(topic, "history_unavailable")
        else:
            if past.gap is not None:
                missing(topic, past.gap)
            elif not past.pure or history.chain(topic.name).plain:
                # Plain messages may have come between; they leave no trace in Redis.
                missing(topic, "not_kept")
            pieces += _joined(topic, past, durable)
    return _in_order(pieces, gaps, limits, last_event_id)


def replay_last(topics: Iterable[Topic], count: int, pasts: Mapping[str, Past] | None, limits: Limits) -> Replay:
    """The newest `count` events of each topic; arguments as for `replay_after`."""
    pieces: list[_Piece] = []
    for topic in topics:
        past = None if pasts is None else pasts.get(topic.name)
        kept = _from_ring(topic, -1, _START) if past is None else _joined(topic, past, _START)
        pieces += [piece for piece in sorted(kept, key=_by_clock)[-count:] if piece.event.id is not None]
    return _in_order(pieces, [], limits, None)


def _by_clock(piece: _Piece) -> tuple[DurableId, bool, int]:
    return piece[:3]


def find_place(topics: Iterable[Topic], last_event_id: str) -> Place | None:
    """Where the event with an id stands; None if it is in none of the rings."""
    # A publisher may use the same id on several channels; the earliest place loses nothing.
    found = [
        Place(seq, topic.ring.stretch if topic.ring.stretch is not None and seq in topic.ring.stretch else None)
        for topic in topics
        if topic.ring is not None and (seq := topic.ring.find(last_event_id)) is not None
    ]
    return min(found, key=lambda place: place.seq, default=None)


def covers(topic: Topic, place: Place | None) -> bool:
    """Whether all that came on the topic after a place is in its ring."""
    if place is None or topic.ring is None or topic.ring.since > place.seq:
        return False
    return place.stretch is None or topic.ring.stretch is place.stretch


def _later(topic: Topic, place: Place | None, last_event_id: str) -> int | None:
    """The place from which on everything in the topic's ring came after the id."""
    ring = topic.ring
    if ring is None:
        return None
    if place is None:
        return ring.surely_after(last_event_id)
    if place.stretch is ring.stretch:
        return place.seq
    # What stands in a stretch may have come earlier than it seems to from outside.
    return max([place.seq, *(stretch.end for stretch in (place.stretch, ring.stretch) if stretch is not None)])


def _from_ring(topic: Topic, seq: int, floor: DurableId) -> list[_Piece]:
    """The ring's events after a place; plain ones come where they stood among the durable ones, after `floor`."""
    pieces = []
    clock = floor
    for entry in topic.ring.after(seq) if topic.ring is not None else ():
        durable = entry.event.durable
        if durable is not None:
            clock = max(clock, durable)
        pieces.append(_Piece(durable or clock, True, entry.seq, entry.channel, entry.event))
    return pieces


def _joined(topic: Topic, past: Past, after: DurableId) -> list[_Piece]:
    """Durable history, then the ring, each durable event once."""
    ring = topic.ring.after(-1) if topic.ring is not None else []
    in_ring = {entry.event.durable for entry in ring}
    pieces = [
        _Piece(event.durable, False, 0, topic.name, event)
        for event in past.events
        if event.durable is not None and event.durable > after and event.durable not in in_ring
    ]
    floor = max(pieces[-1].clock if pieces else _START, after)
    # Plain events that came before the id were seen; a second for clocks and delays.
    too_old = {entry.seq for entry in ring if entry.event.durable is None and entry.time_ms <= after.ms - _SECOND_MS}
    return pieces + [
        piece
        for piece in _from_ring(topic, -1, floor)
        if (piece.seq not in too_old if piece.event.durable is None else piece.event.durable > after)
    ]


def _in_order(pieces: list[_Piece], gaps: list[tuple[str, Event]], limits: Limits, since: str | None) -> Replay:
    # An event that came through a channel and a pattern is in both their rings.
    unique = {(piece.seq or piece.clock, piece.channel): piece for piece in pieces}
    ordered = sorted(_along_the_clock(unique.values()), key=_by_clock)
    first = _first_that_fits(ordered, limits)
    if first:
        cut = {piece.channel for piece in ordered[:first]}
        gaps = gaps + [(channel, gap(channel, "too_many", since)) for channel in sorted(cut)]
        ordered = ordered[first:]
    count = len(gaps) + sum(piece.event.type == "gateway.gap" for piece in ordered)
    return Replay(gaps + [(piece.channel, piece.event) for piece in ordered], count)


def _along_the_clock(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """The same, with plain events where they stood among the durable ones of all channels, not of their own alone.

    In any other order the last id a client has seen would not stand for all that came before it.
    """
    clock = _START
    for piece in sorted(pieces, key=lambda piece: piece.seq):
        if not piece.seq:  # it was read from Redis, and nothing is known of its place among the others
            yield piece
            continue
        clock = max(clock, piece.clock)
        yield piece if piece.event.durable is not None else piece._replace(clock=clock)


def _first_that_fits(ordered: list[_Piece], limits: Limits) -> int:
    """Where the newest events begin that are within the limits; one always is."""
    first = max(0, len(ordered) - limits.events)
    room = limits.bytes
    for place in range(len(ordered) - 1, first - 1, -1):
        room -= len(ordered[place].event.frame)
        if room < 0:
            return min(place + 1, len(ordered) - 1)
    return first
