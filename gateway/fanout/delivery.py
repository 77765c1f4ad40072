"""The fan-out: which subscriber gets which bytes. Nothing here waits for a client, or for anything else."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from gateway.fanout.audience import Audience
from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.encodings import Encoding
from gateway.fanout.members import Members
from gateway.fanout.policies import Policies, Policy
from gateway.fanout.sending import Behind, send_all
from gateway.fanout.slices import Slices
from gateway.fanout.subscriber import QUEUE, Sink, Subscriber
from gateway.fanout.turns import Turns
from gateway.fanout.unsent import Piece
from gateway.memory.event import Event
from gateway.memory.listening import Listening, keyed
from gateway.memory.place import INCLUDED, NOWHERE, format_era, format_part, format_place
from gateway.memory.position import Position
from gateway.memory.replay import Replayed
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings

_LONG_ID = 512
"""Bytes. After a tick, ids are short again."""
_MAX_HELD = 1_048_576
"""Bytes of events that may wait for a fan-out that is under way."""
_LARGE = 16_384
"""Bytes of bodies that are not copied behind each stream's own id, but sent after it: what waits for slow clients is
held by reference."""


class _Run:
    """Messages of one channel that follow each other."""

    __slots__ = ("channel", "events", "positions", "topics")

    def __init__(self, heard: Heard) -> None:
        self.channel = heard.channel
        self.topics = heard.topics
        self.events = [heard.event]
        self.positions = [heard.positions]

    def add(self, heard: Heard) -> None:
        self.events.append(heard.event)
        self.positions.append(heard.positions)


class Delivery:
    """Hands each message to those who listen to it.

    Args:
        settings: limits of queues, and what happens when one is full.
        members: who listens.
        listening: what has been heard.
        metrics: where deliveries are counted.
        clock: event loop time.

    Attributes:
        need_tick: called when ids have become long.
    """

    def __init__(
        self, settings: Settings, members: Members, listening: Listening, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self.need_tick: Callable[[], None] = lambda: None
        self._members = members
        self._listening = listening
        self._metrics = metrics
        self._clock = clock
        self._policies = Policies(settings.overflow)
        self._limits = QueueLimits(settings.queue_events, settings.queue_bytes)
        self._slices = Slices(self._queue_shared, members.unsent)
        self._turns = Turns(self.commit)
        # Runs for streams of several topics, behind a fan-out that is under way; nobody is their recipient yet.
        self._held: list[_Run] = []
        self._held_bytes = 0
        # Where topics are that had a message since the tick, up to what is delivered: messages are counted as they
        # are read, and what arrives together is delivered later.
        self._at: dict[Topic, Position] = {}
        self._parts: dict[Topic, str] = {}
        members.pinger.ping = self.ping

    def ticked(self) -> None:
        """A tick has come: every topic is there."""
        self._at.clear()
        self._parts.clear()

    def deliver(self, batch: Sequence[Heard]) -> None:
        """Hand out what arrived together.

        A client of one channel gets one write for all of it. A client of a pattern, or of several topics, gets the
        events in the order in which they were published.
        """
        if len(batch) == 1:  # as mostly
            alone = _Run(batch[0])
            self._in_order(alone)
            self._to_single(alone, patterns=False)
            return
        run: _Run | None = None
        by_channel: dict[tuple[str, tuple[Topic, ...]], _Run] = {}
        for heard in batch:
            key = heard.channel, heard.topics
            if run is not None and (run.channel, run.topics) == key:
                run.add(heard)
            else:
                if run is not None:
                    self._in_order(run)
                run = _Run(heard)
            if (single := by_channel.get(key)) is None:
                by_channel[key] = _Run(heard)
            else:
                single.add(heard)
        if run is not None:
            self._in_order(run)
        for single in by_channel.values():
            self._to_single(single, patterns=False)

    def commit(self) -> None:
        """Settle who gets what was delivered so far, and with which ids: members or positions are about to change."""
        held, self._held, self._held_bytes = self._held, [], 0
        for run in held:
            self._to_joint(run)

    def settle(self, topics: Iterable[Topic]) -> None:
        """Finish what is under way on these topics."""
        self._turns.finish()
        for topic in topics:
            if (audience := self._members.audience(topic)) is not None:
                self._slices.finish(audience)

    def send(self, subscribers: Sequence[Subscriber], piece: bytes, events: int) -> None:
        """Send a piece to some subscribers, behind whatever waits for them."""
        if behind := send_all(subscribers, piece):
            self._queue(behind, piece, "", events, "disconnect")

    def begin_with(self, subscriber: Subscriber, pieces: Iterator[Piece]) -> None:
        """Let a replay wait for a subscriber, before everything that comes."""
        self._backlog(subscriber).begin_with(pieces)

    def ping(self, subscriber: Subscriber) -> None:
        """Send a comment, unless bytes are under way anyway."""
        piece = subscriber.encoding.ping
        behind = send_all([subscriber], piece)
        if not behind or subscriber.sink is None:
            return
        if behind[0][1] != QUEUE or subscriber.backlog is None:
            self._queue(behind, piece, "", 0, "disconnect")

    def _in_order(self, run: _Run) -> None:
        """To those whose ids would go backwards if they got each channel's events together."""
        self._to_single(run, patterns=True)
        if not self._turns.busy:
            self._to_joint(run)
            return
        # What comes meanwhile on one channel is written together, as what arrives together is.
        last = self._held[-1] if self._held else None
        if last is not None and (last.channel, last.topics) == (run.channel, run.topics):
            last.events += run.events
            last.positions += run.positions
        else:
            self._held.append(run)
        self._held_bytes += sum(event.size for event in run.events)
        if self._held_bytes > _MAX_HELD:  # memory is not to pay for fairness
            self._turns.finish()

    def _to_single(self, run: _Run, patterns: bool) -> None:
        """To those who listen to one channel, or to one pattern."""
        now = self._clock()
        for place, topic in enumerate(run.topics):
            if topic.is_pattern is not patterns:
                continue
            audience = self._members.audience(topic)
            if audience is None:
                continue
            audience.last_delivery = now
            if not audience.single:
                continue
            events: list[Replayed] | None = None
            for encoding, recipients in list(audience.single.items()):
                if events is None:
                    events = [
                        Replayed(run.channel, event, _id(topic, positions[place], event))
                        for event, positions in zip(run.events, run.positions, strict=True)
                    ]
                self._metrics.deliveries += len(recipients) * len(events)
                if self._slices.wants(audience, len(recipients)):
                    self._slices.add(audience, recipients, encoding, run.channel, events)
                else:
                    piece = encoding.encode(events)
                    if behind := send_all(recipients, piece):
                        self._queue_shared(behind, encoding, piece, run.channel, events)

    def _to_joint(self, run: _Run) -> None:
        """To those who listen to several topics, each once."""
        now = self._clock()
        seen: list[Audience] = []
        for place, topic in enumerate(run.topics):
            audience = self._members.audience(topic)
            if audience is None:
                continue
            audience.last_delivery = now
            for encoding, members in list(audience.joint.items()) if audience.joint else ():
                recipients = members
                if seen:
                    recipients = members.difference(*[other.joint.get(encoding, ()) for other in seen])
                self._metrics.deliveries += len(recipients) * len(run.events)
                own = self._with_own_ids(topic, run.topics, encoding, recipients)
                in_turns = self._turns.wants(len(recipients))
                if len(own) != len(recipients):
                    events = [
                        Replayed(run.channel, event, _joint_id(topic, positions[place], event))
                        for event, positions in zip(run.events, run.positions, strict=True)
                    ]
                    shared = recipients - own if own else recipients
                    send = partial(self._send_shared, encoding, encoding.encode(events), run.channel, events)
                    if in_turns:
                        self._turns.add(shared, send)
                    else:
                        send(shared)
                if own:
                    self._to_own(run, encoding, own, in_turns)
            seen.append(audience)
        last = run.positions[-1]
        for topic, position in zip(run.topics, last, strict=True):
            if position is not None:
                self._at[topic] = position
                self._parts.pop(topic, None)

    def _with_own_ids(
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

    def _send_shared(
        self,
        encoding: Encoding,
        piece: bytes,
        channel: str,
        events: list[Replayed],
        recipients: Collection[Subscriber],
    ) -> None:
        """Send the same bytes to each."""
        if behind := send_all(recipients, piece):
            self._queue_shared(behind, encoding, piece, channel, events)

    def _to_own(self, run: _Run, encoding: Encoding, recipients: set[Subscriber], in_turns: bool) -> None:
        """To those whose ids are their own."""
        bodies = encoding.bodies(run.channel, run.events)
        if not in_turns:
            self._send_own(run, encoding, bodies, self._ids(run, self._at, self._parts), recipients)
        elif self._needs_care():
            # These ids are made of what is so now. It is rare, and lasts for seconds.
            self._turns.finish()
            self._send_own(run, encoding, bodies, self._ids(run, self._at, self._parts), recipients)
        else:
            ids_of = self._ids(run, dict(self._at), dict(self._parts))
            self._turns.add(recipients, partial(self._send_own, run, encoding, bodies, ids_of))

    def _send_own(
        self,
        run: _Run,
        encoding: Encoding,
        bodies: Sequence[bytes],
        ids_of: "_IdsOf",
        recipients: Collection[Subscriber],
    ) -> None:
        """Send the same bodies, each behind the stream's own id."""
        size = sum(map(len, bodies))
        shared = encoding.join(bodies, [None] * len(bodies)) if size > _LARGE and len(bodies) == 1 else None
        pieces: dict[tuple[Topic, ...], bytes] = {}
        behind: dict[tuple[Topic, ...], list[Behind]] = {}
        included = self._members.included
        for subscriber in recipients:
            topics = subscriber.topics
            if included and subscriber in included:
                self._send_with_included(run, encoding, subscriber, bodies)
                continue
            piece = pieces.get(topics)
            if piece is None:
                ids = ids_of(topics)
                piece = encoding.join([b""], ids) if shared is not None else encoding.join(bodies, ids)
                pieces[topics] = piece
            try:
                taken = subscriber.send(piece)
            except OSError:  # as in `send_all`
                taken = 0
            if taken != len(piece):
                behind.setdefault(topics, []).append((subscriber, taken))
            elif shared is not None and (rest := send_all([subscriber], shared)):
                behind.setdefault((), []).extend(rest)
        if not behind:
            return
        if shared is not None:
            self._queue_two_parts(run.channel, shared, pieces, behind)
            return
        for topics, some in behind.items():

            def newest(topics: tuple[Topic, ...] = topics) -> bytes:
                return encoding.join(bodies[-1:], ids_of(topics)[-1:])

            self._queue_run(some, pieces[topics], run.channel, len(bodies), newest)

    def _send_with_included(
        self, run: _Run, encoding: Encoding, subscriber: Subscriber, bodies: Sequence[bytes]
    ) -> None:
        """The same for a stream whose ids say which topics are no longer new."""
        said = INCLUDED + self._members.included[subscriber]
        ids = [
            id_ if id_ is None or id_ == NOWHERE else id_ + said for id_ in self._careful_ids(run, subscriber.topics)
        ]
        piece = encoding.join(bodies, ids)
        for behind in send_all([subscriber], piece):
            self._queue([behind], piece, run.channel, len(bodies), self._policies.of(run.channel))

    def _needs_care(self) -> bool:
        """Whether some topics have no positions, or some streams ids of a form of their own."""
        listening = self._listening
        return listening.era is None or bool(listening.uncounted) or bool(self._members.special)

    def _ids(self, run: _Run, at: dict[Topic, Position], parts: dict[Topic, str]) -> "_IdsOf":
        """What gives the ids of a run's events on a stream of several topics.

        Args:
            at: where topics are that had a message since the tick.
            parts: what ids say of them; what is missing is added.
        """
        heard = frozenset(run.topics)
        careful = self._needs_care()
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

        def ids_of(topics: tuple[Topic, ...]) -> list[str | None]:
            if careful:
                return self._careful_ids(run, topics)
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
                self.need_tick()
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
            self.need_tick()
        return [place]

    def _careful_ids(self, run: _Run, topics: tuple[Topic, ...]) -> list[str | None]:
        """The same where some topics have no positions, or the same short key."""
        era = self._listening.era
        if era is None or any(topic.state is not State.OPEN for topic in topics):
            return [NOWHERE] * len(run.events)
        at = {topic: self._at[topic] for topic in topics if topic in self._at}
        ids: list[str | None] = []
        for event, positions in zip(run.events, run.positions, strict=True):
            at |= {
                topic: position
                for topic, position in zip(run.topics, positions, strict=True)
                if topic in topics and position is not None
            }
            place = format_place(era, keyed(topics, at))
            ids.append(f"{event.own_id}~{place}" if event.own_id else place)
        return ids

    def _queue_shared(
        self, behind: list[Behind], encoding: Encoding, piece: bytes, channel: str, events: list[Replayed]
    ) -> None:
        self._queue_run(behind, piece, channel, len(events), lambda: encoding.encode(events[-1:]))

    def _queue_run(
        self, behind: list[Behind], piece: bytes, channel: str, events: int, newest: Callable[[], bytes]
    ) -> None:
        """Let events of one channel wait; `newest` is to give the last of them alone."""
        policy = self._policies.of(channel)
        if policy == "latest" and events > 1:
            begun = [each for each in behind if each[1] != QUEUE]
            self._queue(begun, piece, channel, events, policy)
            behind = [each for each in behind if each[1] == QUEUE]
            if not behind:
                return
            events = 1
            piece = newest()
        self._queue(behind, piece, channel, events, policy)

    def _queue_two_parts(
        self,
        channel: str,
        shared: bytes,
        heads: dict[tuple[Topic, ...], bytes],
        behind: dict[tuple[Topic, ...], list[Behind]],
    ) -> None:
        """Let a large event wait behind a head of each stream's own; under `()`, for those that have had the head."""
        policy = self._policies.of(channel)
        body = Piece(self._members.unsent, shared, 1, channel, policy)
        for topics, some in behind.items():
            if not topics:
                self._queue_piece(some, body)
                continue
            begun = [each for each in some if each[1] != QUEUE]
            self._queue(begun, heads[topics], channel, 0, policy)
            self._queue_piece(send_all([subscriber for subscriber, _ in begun], shared), body)
            head = Piece(self._members.unsent, heads[topics], 1, channel, policy, rest=body)
            self._queue_piece([each for each in some if each[1] == QUEUE], head)

    def _queue(self, behind: list[Behind], data: bytes, channel: str, events: int, policy: Policy) -> None:
        """Let bytes wait for those they could not be sent to, or not as a whole."""
        if behind:
            self._queue_piece(behind, Piece(self._members.unsent, data, events, channel, policy))

    def _queue_piece(self, behind: list[Behind], piece: Piece) -> None:
        for subscriber, taken in behind:
            if subscriber.closed is not None:  # a moment ago, to make room
                continue
            if taken == QUEUE:
                self._add(subscriber, piece)
            elif subscriber.sink is not None:
                self._send_rest(subscriber, subscriber.sink, piece, taken)
        if self._members.unsent.full:
            self._members.make_room()

    def _send_rest(self, subscriber: Subscriber, sink: Sink, piece: Piece, taken: int) -> None:
        """Have the transport send what the kernel didn't take."""
        self._members.behind.add(subscriber)
        if len(piece.data) - taken > _LARGE:
            # A client that doesn't read must not hold a copy of what many share.
            subscriber.writing = piece
            sink.send_rest(memoryview(piece.data)[taken:])
        else:
            rest = piece.data[taken:]
            subscriber.writing = Piece(self._members.unsent, rest)
            sink.send_rest(rest)

    def _add(self, subscriber: Subscriber, piece: Piece) -> None:
        backlog = subscriber.backlog
        if backlog is None:
            backlog = self._backlog(subscriber)
        dropped, gaps = backlog.dropped, backlog.gaps
        if not backlog.add(piece):
            self._members.drop(subscriber, "overflow")
            return
        self._metrics.dropped_events += backlog.dropped - dropped
        self._metrics.gaps["overflow"] += backlog.gaps - gaps
        if subscriber.sink is not None:
            subscriber.sink.wake()

    def _backlog(self, subscriber: Subscriber) -> Backlog:
        """A new queue."""
        backlog = subscriber.backlog = Backlog(self._limits, self._members.unsent, self._clock())
        self._members.behind.add(subscriber)
        return backlog


_NOBODY: frozenset[Subscriber] = frozenset()
_IdsOf: TypeAlias = Callable[[tuple[Topic, ...]], list[str | None]]


def _part(topic: Topic, at: dict[Topic, Position], parts: dict[Topic, str]) -> str:
    """What ids say of a topic that had a message since the tick."""
    part = parts[topic] = format_part(topic.key, at[topic])
    return part


def _id(topic: Topic, position: Position | None, event: Event) -> str:
    """The id on a stream of one topic."""
    if event.own_id and not topic.is_pattern:
        return event.own_id
    return _joint_id(topic, position, event)


def _joint_id(topic: Topic, position: Position | None, event: Event) -> str:
    """The id on a stream of which no other topic had a message since the tick."""
    if position is None:
        return NOWHERE
    place = format_era(position[:2]) + format_part(topic.key, position)
    return f"{event.own_id}~{place}" if event.own_id else place
