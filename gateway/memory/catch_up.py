"""Bringing one client up to date: what has to be found out, and then what it has missed."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeAlias

from gateway.memory.entry import Entry, Kept, clip, in_order
from gateway.memory.hole import LOST, Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import Known, merge
from gateway.memory.place import Suffix, new_topics
from gateway.memory.position import ZERO, Position
from gateway.memory.replay import NO_NEW, Limits, New, Replay, Replayed, merge_topics
from gateway.memory.resume import Resume, begin, now
from gateway.memory.topic import State, Topic

_TRIES_WITH_OTHERS = 5
"""Answers may be too large for Redis to send: then each costs the connection, and it is for Redis alone to answer."""
_TRIES = 100


@dataclass(slots=True)
class Wish:
    """What a client wants from before now.

    Attributes:
        last_event_id: where it was; None for a new one.
        history: how many kept events of each topic come first, for a new one.
        new: names of topics that were added since the id.
        proof: what the stream's ids are to say of whose it is; see `gateway.memory.place`.
        told_of_end: it wants a stream also where all channels are over, which says so, and ends.
    """

    last_event_id: str | None = None
    history: int = 0
    new: frozenset[str] = frozenset()
    proof: str = ""
    told_of_end: bool = False

    @property
    def from_now(self) -> bool:
        """Whether it wants nothing from before, as almost every new client."""
        return self.last_event_id is None and not self.history and not self.new


class Verify(NamedTuple):
    """A tick has to be heard that is requested from now on.

    Attributes:
        elsewhere: the client seems to have been on a newer master. It must be requested over new connections: those
            that are open would lead to the old one.
    """

    elsewhere: bool = False


class Find(NamedTuple):
    """Others have to be asked what is missing; `CatchUp.found` takes their answers.

    Attributes:
        holes: about what, by topic.
        workers: whether to ask the other workers, too, and not Redis alone.
    """

    holes: list[tuple[Topic, Hole]]
    workers: bool = True


@dataclass(slots=True)
class Older:
    """Redis' history is wanted; `CatchUp.older` takes it.

    Attributes:
        count: the newest so many of each topic; 0: not by number.
        previous: what came after this id of the previous version.
    """

    count: int
    previous: tuple[int, int] | None


Need: TypeAlias = Verify | Find | Older


class CatchUp:
    """What has been found out for one stream, or for several that are alike.

    Args:
        topics: of the stream.
        wish: what its client wants from before now.

    Attributes:
        verified: a tick was heard that had been requested after the client came.
        found: by topic, what others knew of which part.
        older: by topic, events from Redis that come in front of everything else, up to a position.
        cut: by topic, why Redis has more events than were read.
        tries: how often something had to be found out.
        suffix: what the stream's ids end with.
    """

    def __init__(self, topics: tuple[Topic, ...], wish: Wish) -> None:
        self.topics = topics
        self.wish = wish
        self.verified = False
        self.found: dict[Topic, list[Known]] = {}
        self.older: dict[Topic, tuple[list[Entry], Position]] = {}
        self.cut: Mapping[Topic, str] = {}
        self.tries = 0
        self._epoch: int | None = None
        self._searched = False  # for the publisher's id
        included = new_topics(topic for topic in topics if topic.name in wish.new)
        self._resume: Resume | None = None
        if wish.last_event_id is not None:
            self._resume = Resume.parse(wish.last_event_id, [topic for topic in topics if topic.name in wish.new])
            if not wish.new and self._resume.place is not None:  # a stream that goes on has no URL
                included = self._resume.place.included
        self.suffix = Suffix(included, wish.proof)

    def forget(self) -> None:
        """The connection to Redis was lost: begin again."""
        self.verified = self._searched = False
        self.found.clear()
        self.older.clear()
        self.cut = {}

    def has_missed_more_than(self, events: int) -> bool:
        """Whether its client has missed more on one of its topics; as far as that can be told without looking."""
        place = self._resume.place if self._resume is not None else None
        return place is not None and any(topic.ring.has_more_than(events, place.at(topic)) for topic in self.topics)

    def attempt(
        self, listening: Listening, limits: Limits, may_search: Callable[[], bool] = lambda: True
    ) -> list[Replayed] | Need:
        """As `plan`, with the replay made."""
        found = self.plan(listening, limits, may_search)
        return list(found) if isinstance(found, Replay) else found

    def plan(
        self, listening: Listening, limits: Limits, may_search: Callable[[], bool] = lambda: True
    ) -> Replay | Need:
        """What the stream begins with, or what has to be found out before.

        Whoever gets the former has to join at once.

        Args:
            listening: what this worker has heard. All topics are heard.
            limits: of the replay.
            may_search: whether a publisher's id may be looked for elsewhere.
        """
        if self._epoch != listening.epoch:
            # It may lead to another history, in which the answers found on the former connection aren't true.
            self.forget()
            self._epoch = listening.epoch
        resume = self._resume
        if resume is None:
            return self._history(limits) if self.wish.history else self._replay({}, {}, (), None)
        if resume.place is None:
            return self._after_text(listening, limits, resume, may_search)
        started = begin(listening, self.topics, resume, self.verified)
        if started is None:
            return Verify(listening.era is not None and resume.place.generation > listening.era[0])
        returning = [topic for topic in self.topics if topic not in resume.new]
        return self._missed(listening, limits, started.start, started.gaps, returning)

    def _missed(
        self,
        listening: Listening,
        limits: Limits,
        start: Mapping[Topic, Position],
        gaps: Mapping[Topic, str],
        returning: Sequence[Topic],
        older: dict[Topic, list[Entry]] | None = None,
    ) -> Replay | Need:
        """What came after the start, on all topics."""
        missed: dict[Topic, list[Kept]] = {}
        holes: list[tuple[Topic, Hole]] = []
        for topic, position in start.items():
            kept = self._known(topic, position)
            missed[topic] = [*(older or {}).get(topic, []), *kept]
            holes += [(topic, each) for each in kept if isinstance(each, Hole) and each.askable]
        if holes:
            if self.tries < _TRIES:
                widened = [(topic, self._widened(listening, topic, hole)) for topic, hole in holes]
                return Find(widened, self.tries < _TRIES_WITH_OTHERS)
            missed = {topic: [_given_up(each) for each in kept] for topic, kept in missed.items()}
        new = New(frozenset(missed).difference(returning), self.suffix.new, ZERO)
        for topic in new.topics:
            new = new._replace(begin=max(new.begin, start[topic]))
        newest_first = {topic: reversed(kept) for topic, kept in missed.items()}
        merged, cut = merge_topics(limits, self.topics, returning, newest_first)
        gaps = {**gaps, **dict.fromkeys((topic for topic in cut if topic not in gaps), "too_many")}
        return self._replay(start, gaps, merged, self.wish.last_event_id, new)

    def _widened(self, listening: Listening, topic: Topic, hole: Hole) -> Hole:
        """What is asked about a hole.

        While the first answer was awaited, more has come than the ring holds. An answer about the new hole would be
        too late again, so everything up to now is asked for: what the ring forgets meanwhile is part of the answer.
        """
        if not self.tries or hole.end != topic.ring.since or listening.era is None:
            return hole
        return hole._replace(end=topic.position(listening.era))

    def _known(self, topic: Topic, start: Position) -> list[Kept]:
        """What the ring holds after a position, with what others knew in its holes."""
        kept = topic.ring.after(start) if topic.state is State.OPEN else []
        found = self.found.get(topic)
        if not found or not any(isinstance(each, Hole) and each.askable for each in kept):
            return kept
        filled: list[Kept] = []
        for each in kept:
            if isinstance(each, Hole) and each.askable:
                filled += _overlay(each, found)
            else:
                filled.append(each)
        return in_order(filled)

    def _history(self, limits: Limits) -> Replay | Need:
        """The newest events of each topic, for a new client."""
        count = min(self.wish.history, limits.events)
        # The newest durable message of a channel that is over is its end, which is told by itself.
        if any(topic.over for topic in self.topics):
            count += 1
        if any(topic not in self.older and not self._ring_has(topic, count) for topic in self.topics):
            return Older(count, None)
        count = min(self.wish.history, limits.events)
        newest = {topic: islice(self._newest(topic), count) for topic in self.topics}
        merged, cut = merge_topics(limits, self.topics, self.topics, newest)
        start: dict[Topic, Position] = {}
        for topic, each in merged:
            start.setdefault(topic, Position(*each.position[:2]))
        gaps = {**dict.fromkeys(cut, "too_many"), **self.cut}
        return self._replay(start, gaps, merged, None)

    def _ring_has(self, topic: Topic, count: int) -> bool:
        """Whether the ring holds so many events; then nobody else is asked."""
        if topic.state is not State.OPEN or len(topic.ring) < count:
            return False
        return sum(1 for _ in islice(topic.ring.newest(), count)) == count

    def _newest(self, topic: Topic) -> Iterator[Entry]:
        """What Redis and the ring hold, newest first."""
        older = reversed(self.older[topic][0]) if topic in self.older else iter(())
        own = topic.ring.newest() if topic.state is State.OPEN else iter(())
        last: Position | None = None
        for each in heapq.merge(older, own, key=lambda entry: entry.position, reverse=True):
            if each.position != last:
                last = each.position
                if not each.event.is_end:
                    yield each

    def _after_text(
        self, listening: Listening, limits: Limits, resume: Resume, may_search: Callable[[], bool]
    ) -> Replay | Need:
        """What came after an id that holds no place: a publisher's own, or one of another version."""
        topics = self.topics
        if any(topic.state is not State.OPEN for topic in topics):
            return self._only_gaps("uncounted")
        here = now(listening, topics)
        if len(topics) == 1 and not topics[0].is_pattern:
            topic = topics[0]
            found = self._find(topic, resume.text)
            if not found:
                # Before it is looked for elsewhere, this worker must have heard what the client has.
                if not self.verified and may_search():
                    return Verify()
                holes = [each for each in self._known(topic, ZERO) if isinstance(each, Hole) and each.askable]
                if self.verified and not self._searched and holes:
                    self._searched = True
                    return Find([(topic, hole) for hole in holes])
            if len(found) == 1:
                return self._missed(listening, limits, {topic: found[0]}, {}, topics)
        if resume.previous is None:
            return self._only_gaps("unknown_id")
        if not all(topic in self.older for topic in topics):
            return Older(0, resume.previous)
        kept = {topic: self.older[topic][0] for topic in topics}
        ends = {topic: min(self.older[topic][1], here[topic]) for topic in topics}
        return self._missed(listening, limits, ends, dict.fromkeys(topics, "unknown_id"), topics, kept)

    def _find(self, topic: Topic, own_id: str) -> list[Position]:
        """Where events with that id of their publisher's stand."""
        known = self._known(topic, ZERO)
        return [each.position for each in known if isinstance(each, Entry) and each.event.own_id == own_id]

    def _only_gaps(self, reason: str) -> Replay:
        return self._replay({}, dict.fromkeys(self.topics, reason), (), self.wish.last_event_id)

    def _replay(
        self,
        start: Mapping[Topic, Position],
        gaps: Mapping[Topic, str],
        merged: Sequence[tuple[Topic, Kept]],
        since: str | None,
        new: New = NO_NEW,
    ) -> Replay:
        return Replay(self.topics, start, gaps, merged, since, new, self.suffix.proof)


def _overlay(hole: Hole, found: Sequence[Known]) -> list[Kept]:
    """What is known of a hole; what isn't is still a hole of the same kind."""
    usable = [known for known in found if known.start < hole.end and known.end > hole.position]
    reasons = [each for known in usable for each in known.kept if isinstance(each, Hole) and not each.askable]
    without_reasons = [
        known._replace(kept=[each for each in known.kept if isinstance(each, Entry)]) for known in usable
    ]
    merged = merge(hole.position, hole.end, without_reasons)
    unknown = [each._replace(kind=hole.kind) for each in merged if isinstance(each, Hole)]
    events = [each for each in merged if isinstance(each, Entry)]
    return in_order([*events, *unknown, *clip(reasons, hole.position, hole.end)])


def _given_up(each: Kept) -> Kept:
    """A hole about which everybody was asked too often."""
    if isinstance(each, Hole) and each.askable:
        return each._replace(kind="redis_lost" if each.kind == LOST else "not_kept")
    return each
