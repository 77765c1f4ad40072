"""The ids of events: on streams of several topics they name all that had a message since the tick."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from gateway.fanout.encodings import Encoding
from gateway.fanout.members import Members
from gateway.fanout.run import Run
from gateway.fanout.subscriber import Subscriber
from gateway.memory.event import Event
from gateway.memory.listening import Listening, keyed
from gateway.memory.place import NOWHERE, format_era, format_part, format_place
from gateway.memory.position import Position
from gateway.memory.topic import State, Topic

_LONG_ID = 512
"""Bytes. After a tick, ids are short again."""
_NOBODY: frozenset[Subscriber] = frozenset()

IdsOf: TypeAlias = Callable[[tuple[Topic, ...]], Sequence[str | None]]
"""Gives the ids of some events on a stream of these topics."""


class JointIds:
    """Follows what is delivered to streams of several topics.

    Args:
        members: who listens.
        listening: what has been heard.
        need_tick: called when ids have become long.
    """

    def __init__(self, members: Members, listening: Listening, need_tick: Callable[[], None]) -> None:
        self._members = members
        self._listening = listening
        self._need_tick = need_tick
        # Where topics are that had a message since the tick, up to what is delivered: messages are counted as they
        # are read, and what arrives together is delivered later.
        self._at: dict[Topic, Position] = {}
        self._parts: dict[Topic, str] = {}

    def ticked(self) -> None:
        """A tick has come: every topic is there."""
        self._at.clear()
        self._parts.clear()

    def delivered(self, run: Run) -> None:
        """Ids name its last event from here on."""
        for topic, position in zip(run.topics, run.positions[-1], strict=True):
            if position is not None:
                self._at[topic] = position
                self._parts.pop(topic, None)

    def own(
        self, topic: Topic, together: tuple[Topic, ...], encoding: Encoding, recipients: set[Subscriber]
    ) -> set[Subscriber]:
        """Those of the recipients whose ids name other topics than this one, too."""
        at = self._at
        uncounted = self._listening.uncounted
        others = [other for other in together if other is not topic]
        if len(recipients) <= len(at) + len(others) + len(uncounted):
            return {
                each
                for each in recipients
                if any(
                    other in at or other in others or other in uncounted
                    for other in each.topics
                    if other is not topic
                )
                or each in self._members.special
            }
        own = recipients & self._members.special
        for loud in (at, others, uncounted):
            for other in loud:
                if other is not topic and (audience := self._members.audience(other)) is not None:
                    own |= recipients & audience.joint.get(encoding, _NOBODY)
        return own

    @property
    def need_care(self) -> bool:
        """Whether some topics have no positions, or some streams two topics of the same short key."""
        listening = self._listening
        return listening.era is None or bool(listening.uncounted) or bool(self._members.ambiguous)

    def of(self, run: Run) -> IdsOf:
        """What gives the ids of a run's events on a stream of several topics; to be used now."""
        return self._of(run, self._at, self._parts)

    def of_now(self, run: Run) -> IdsOf:
        """The same, to be used later, when positions have moved."""
        return self._of(run, dict(self._at), dict(self._parts))

    def _of(self, run: Run, at: dict[Topic, Position], parts: dict[Topic, str]) -> IdsOf:
        """As `of`.

        Args:
            at: where topics are that had a message since the tick.
            parts: what ids say of them; what is missing is added.
        """
        heard = frozenset(run.topics)
        careful = self.need_care
        era_text = self._listening.era_text
        own_ids = [event.own_id for event in run.events]
        # What the ids say of the run's own topics; mostly there is one, and one event.
        said = [
            {topic: format_part(topic.key, at_) for topic, at_ in zip(run.topics, positions, strict=True) if at_}
            for positions in run.positions
        ]
        heads = [era_text + next(iter(each.values()), "") for each in said]

        if not careful and len(heads) == len(heard) == 1 and own_ids[0] is None:  # as mostly, and for each stream
            return partial(self._id_behind, heads[0], run.topics[0], at, parts)

        def ids_of(topics: tuple[Topic, ...]) -> Sequence[str | None]:
            if careful:
                return self.careful(run, topics)
            others = "".join(
                [
                    parts.get(topic) or _part(topic, at, parts)
                    for topic in topics
                    if topic in at and topic not in heard
                ]
            )
            if len(heard) == 1:
                places = [head + others for head in heads]
            else:
                places = [
                    era_text + "".join([each[topic] for topic in topics if topic in each]) + others for each in said
                ]
            if len(places[-1]) > _LONG_ID:
                self._need_tick()
            return [f"{own_id}~{place}" if own_id else place for own_id, place in zip(own_ids, places, strict=True)]

        return ids_of

    def _id_behind(
        self,
        head: str,
        heard: Topic,
        at: dict[Topic, Position],
        parts: dict[Topic, str],
        topics: tuple[Topic, ...],
    ) -> list[str | None]:
        """The id of one event on one topic, on a stream of several."""
        place = head
        for topic in topics:
            if topic is not heard and topic in at:
                place += parts.get(topic) or _part(topic, at, parts)
        if len(place) > _LONG_ID:
            self._need_tick()
        return [place]

    def careful(self, run: Run, topics: tuple[Topic, ...]) -> list[str]:
        """The ids where some topics have no positions, or the same short key."""
        era = self._listening.era
        if era is None or any(topic.state is not State.OPEN for topic in topics):
            return [NOWHERE] * len(run.events)
        at = {topic: self._at[topic] for topic in topics if topic in self._at}
        ids: list[str] = []
        for event, positions in zip(run.events, run.positions, strict=True):
            at |= {
                topic: position
                for topic, position in zip(run.topics, positions, strict=True)
                if topic in topics and position is not None
            }
            place = format_place(era, keyed(topics, at))
            ids.append(f"{event.own_id}~{place}" if event.own_id else place)
        return ids


def _part(topic: Topic, at: dict[Topic, Position], parts: dict[Topic, str]) -> str:
    """What ids say of a topic that had a message since the tick."""
    part = parts[topic] = format_part(topic.key, at[topic])
    return part


def id_alone(topic: Topic, position: Position | None, event: Event) -> str:
    """The id on a stream of one topic."""
    if event.own_id and not topic.is_pattern:
        return event.own_id
    return joint_id(topic, position, event)


def joint_id(topic: Topic, position: Position | None, event: Event) -> str:
    """The id on a stream of which no other topic had a message since the tick."""
    if position is None:
        return NOWHERE
    place = format_era(position[:2]) + format_part(topic.key, position)
    return f"{event.own_id}~{place}" if event.own_id else place
