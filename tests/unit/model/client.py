"""A simulated client: it reads its stream when it likes, and knows nothing but ids and events."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gateway.fanout.subscriber import Subscriber
from gateway.memory.place import Place, parse_place
from gateway.memory.position import LAST, ZERO, Position
from tests.unit.model.names import TOPICS, overlap
from tests.unit.model.server import Logged

if TYPE_CHECKING:
    from tests.unit.model.worker import Worker


class Frame(NamedTuple):
    """One event of a stream, as the client sees it."""

    id: str | None
    type: str
    data: str


class Heard(NamedTuple):
    event: int
    place: Place | None


class Told(NamedTuple):
    """A gap: something may be missing on a topic in (start, end].

    Attributes:
        strange: it may hide even what Redis keeps: the client's own past is unknown here.
    """

    topic: str
    start: Position
    end: Position
    reason: str
    strange: bool


def frames(piece: bytes) -> list[Frame]:
    """The events in a piece of a stream; comments are nothing."""
    found = []
    for block in piece.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append(Frame(fields.get("id"), fields.get("event", "message"), fields["data"]))
    return found


class Client:
    """One client.

    Args:
        proof: what all its ids have to say of whose they are; empty: nothing.

    Attributes:
        topics: what it asks for.
        last_id: what it comes back with.
        since: by topic, where it began to listen.
        before: finished listening: topic, from, to.
        heard: the events it has had.
        told: the gaps it has been told of.
        ended: its stream has been ended cleanly.
        uncounted: where it really is, for each `gateway.open` to come that doesn't say it.
        newest_generation: that it has seen.
        lost_track: it has had an event with a publisher's id alone from a demoted master that was already a replica.
        went_back: it has been on a replaced master after having been on the new one.
    """

    def __init__(self, topics: Sequence[str], log: Sequence[Logged], proof: str = "") -> None:
        self.topics = tuple(topics)
        self.proof = proof
        self.last_id: str | None = None
        self.worker: Worker | None = None
        self.subscriber: Subscriber | None = None
        self.socket: deque[Frame] = deque()
        self.since: dict[str, Position] = {}
        self.before: list[tuple[str, Position, Position]] = []
        self.heard: list[Heard] = []
        self.told: list[Told] = []
        self.ended = False
        self.newest_generation = 0
        self.uncounted: deque[dict[str, Position]] = deque()
        self.went_back = False
        self.lost_track = False
        self._log = log
        self._at: dict[str, Position] = {}
        self._open_gaps: list[Told] = []
        self._unfinished: list[Told] = []

    @property
    def live(self) -> bool:
        return self.subscriber is not None and self.subscriber.closed is None

    def feed(self, piece: bytes) -> int:
        """As the `send` of a subscriber."""
        self.socket.extend(frames(piece))
        return len(piece)

    def read(self) -> None:
        """Take one event from the socket."""
        frame = self.socket.popleft()
        place = None
        if frame.id is not None:
            self.last_id = frame.id
            place = parse_place(frame.id)[1]
            assert (place.proof if place is not None else "") == self.proof, frame.id
        counted = place is None or place.generation != 0
        if frame.type == "gateway.gap":
            self._gap(json.loads(frame.data))
        elif frame.type == "gateway.open":
            assert place is not None, "gateway.open without a position"
            if counted:
                self.newest_generation = max(self.newest_generation, place.generation)
                if place.generation < self.newest_generation:
                    self.went_back = True
                self._go_to(place)
            else:
                self._at = self.uncounted.popleft()
            self._close_gaps(self.topics)
            self._unfinished.clear()
            for topic in self.topics:
                self.since.setdefault(topic, self._at[topic])
        elif frame.type == "gateway.closing":
            self.ended = True
        else:
            self._event(int(frame.data), place, counted)

    def leave(self) -> None:
        """The connection is cut; what was not read is lost."""
        if self.subscriber is not None and self.worker is not None:
            self.worker.members.leave(self.subscriber, "client")
        self.socket.clear()
        self.uncounted.clear()
        for told in self._open_gaps:  # what the id it comes back with is not behind of comes again
            if (end := self._at.get(told.topic, ZERO)) > told.start:
                self.told.append(told._replace(end=end))
        self._unfinished += self._open_gaps
        self._open_gaps.clear()
        self.worker = self.subscriber = None
        self.ended = False

    def change(self, topics: Sequence[str]) -> None:
        """Ask for other topics. A channel that moves from one topic to another starts afresh."""
        place = parse_place(self.last_id)[1] if self.last_id is not None else None
        if place is None or place.generation == 0:
            return
        gone = set(self.since) - set(topics)
        while more := {t for t in self.since if t not in gone and any(overlap(t, other) for other in gone)}:
            gone |= more
        self.told += [told for told in self._unfinished if told.topic in gone]
        for topic in gone:
            self.before.append((topic, self.since.pop(topic), self._at.pop(topic)))
        self.topics = tuple(topics)

    @property
    def new(self) -> frozenset[str]:
        """Topics that it declares as added."""
        return frozenset(t for t in self.topics if t not in self.since) if self.last_id is not None else frozenset()

    def _event(self, number: int, place: Place | None, counted: bool) -> None:
        logged = self._log[number]
        self.heard.append(Heard(number, place))
        if not logged.durable:
            # Known plain messages lie in no hole of the topic that delivers them.
            at = [t for t in self.topics if t in logged.positions]
            if place is not None and counted:
                at = [t for t in at if place.at(TOPICS[t]) >= logged.positions[t]]
            self._close_gaps(at, logged)
        if place is not None and counted:
            self._go_to(place)
        elif place is None and any(
            self._at[t].generation != p.generation for t, p in logged.positions.items() if t in self._at
        ):
            self.lost_track = True

    def _go_to(self, place: Place) -> None:
        self._at = {topic: place.at(TOPICS[topic]) for topic in self.topics}

    def _gap(self, data: dict[str, str]) -> None:
        topic, reason = data["channel"], data["reason"]
        start = self._at.get(topic, ZERO) if reason != "unknown_id" else ZERO
        strange = reason in ("unknown_id", "uncounted", "history_unavailable")
        self._open_gaps.append(Told(topic, start, LAST, reason, strange))

    def _close_gaps(self, topics: Sequence[str], until: Logged | None = None) -> None:
        """What comes now is behind the gaps."""
        for told in [each for each in self._open_gaps if each.topic in topics]:
            self._open_gaps.remove(told)
            end = (
                until.positions[told.topic] if until is not None else max(self._at.get(told.topic, LAST), told.start)
            )
            self.told.append(told._replace(end=end))

    def __repr__(self) -> str:
        return f"<client of {', '.join(self.topics)} at {self.last_id}>"
