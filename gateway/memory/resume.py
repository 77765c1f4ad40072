"""Where a stream begins, on each of its topics."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from gateway.memory.listening import Listening
from gateway.memory.place import Place, parse_place, parse_previous
from gateway.memory.position import Position
from gateway.memory.topic import State, Topic


class Resume(NamedTuple):
    """The id a client has come back with.

    Attributes:
        text: as it was sent.
        own_id: the publisher's id in it, or None.
        place: the place in it, or None.
        previous: milliseconds and number, if the previous version of the gateway gave it.
        new: the topics that were added since; they begin after the id's tick.
    """

    text: str
    own_id: str | None
    place: Place | None
    previous: tuple[int, int] | None
    new: frozenset[Topic]

    @classmethod
    def parse(cls, text: str, new: Collection[Topic] = ()) -> "Resume":
        own_id, place = parse_place(text)
        previous = parse_previous(text) if place is None else None
        if place is not None and new:
            # An EventSource repeats its URL with every id that it gets on the stream.
            new = [topic for topic in new if not place.includes(topic)]
        return cls(text, own_id, place, previous, frozenset(new))


class Begin(NamedTuple):
    """Where a stream begins.

    Attributes:
        start: by topic; what came after it is replayed.
        gaps: by topic, why what came before can't be given.
    """

    start: Mapping[Topic, Position]
    gaps: Mapping[Topic, str]


def now(listening: Listening, topics: Collection[Topic]) -> dict[Topic, Position]:
    """Where the topics are, all of which have to be open."""
    assert listening.era is not None
    return {topic: topic.position(listening.era) for topic in topics}


def begin(listening: Listening, topics: Collection[Topic], resume: Resume, verified: bool) -> Begin | None:
    """Where the stream of a client that has come back with a place begins; None if that can't be said yet.

    Args:
        verified: a tick has been heard that was requested after the client had come: this worker is connected to the
            master and has heard everything that any client can have had.
    """
    place = resume.place
    assert place is not None
    returning = [topic for topic in topics if topic not in resume.new]
    # While Redis refuses to count, nothing can be compared on topics that open meanwhile.
    counted = [topic for topic in topics if topic.state is State.OPEN]
    uncounted = dict.fromkeys((topic for topic in returning if topic.state is not State.OPEN), "uncounted")
    if listening.era is None or not counted:
        return Begin({}, uncounted)
    here = now(listening, counted)
    if place.generation == 0:
        return Begin(here, dict.fromkeys(returning, "uncounted"))
    topics = counted
    known = place.generation == listening.era[0] or place.generation in listening.lineage
    start = {topic: place.at(topic) if topic not in resume.new else here[topic] for topic in topics}
    ahead = any(start[topic] > here[topic] for topic in topics)
    # What the client has had of a new topic under another name (through a pattern) must not come again.
    too_early = bool(resume.new) and listening.era <= (place.generation, place.tick)
    if known and not ahead and not too_early:
        return Begin(start, uncounted)
    if not verified:
        # It may have been on a newer master than this worker, or on a worker that has heard more than this one.
        return None
    return Begin(here, {**dict.fromkeys(returning, "history_lost"), **uncounted})
