"""The fan-out: which subscriber gets which bytes. Nothing here waits for a client, or for anything else."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial

from gateway.fanout.audience import Audience
from gateway.fanout.encodings import Encoding
from gateway.fanout.joint_ids import IdsOf, JointIds, id_alone, joint_id
from gateway.fanout.members import Members
from gateway.fanout.queues import LARGE, Alike, Queues
from gateway.fanout.run import Run
from gateway.fanout.sending import Behind, send_all
from gateway.fanout.slices import Slices
from gateway.fanout.subscriber import QUEUE, Subscriber
from gateway.fanout.turns import Turns
from gateway.fanout.unsent import Piece
from gateway.memory.listening import Listening
from gateway.memory.place import NO_SUFFIX
from gateway.memory.replay import Replayed
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings

_MAX_HELD = 1_048_576
"""Bytes of events that may wait for a fan-out that is under way."""


class Delivery:
    """Hands each message to those who listen to it.

    Args:
        settings: limits of queues, and what happens when one is full.
        members: who listens.
        listening: what has been heard.
        metrics: where deliveries are counted.
        clock: event loop time.
        need_tick: called when ids have become long.

    Attributes:
        ticked: to be called when a tick has come.
    """

    def __init__(
        self,
        settings: Settings,
        members: Members,
        listening: Listening,
        metrics: Metrics,
        clock: Callable[[], float],
        need_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._members = members
        self._metrics = metrics
        self._clock = clock
        self._queues = Queues(settings, members, metrics, clock)
        self._ids = JointIds(members, listening, need_tick)
        self._slices = Slices(self._queues.add_shared, members.unsent)
        self._turns = Turns(self.commit)
        # Runs for streams of several topics, behind a fan-out that is under way; nobody is their recipient yet.
        self._held: list[Run] = []
        self._held_bytes = 0
        self.ticked = self._ids.ticked
        members.pinger.ping = self.ping

    def deliver(self, batch: Sequence[Heard]) -> None:
        """Hand out what arrived together.

        A client of one channel gets one write for all of it. A client of a pattern, or of several topics, gets the
        events in the order in which they were published.
        """
        if len(batch) == 1:  # as mostly
            alone = Run(batch[0])
            self._in_order(alone)
            self._to_single(alone, patterns=False)
            return
        run: Run | None = None
        by_channel: dict[tuple[str, tuple[Topic, ...]], Run] = {}
        for heard in batch:
            key = heard.channel, heard.topics
            if run is not None and (run.channel, run.topics) == key:
                run.add(heard)
            else:
                if run is not None:
                    self._in_order(run)
                run = Run(heard)
            if (single := by_channel.get(key)) is None:
                by_channel[key] = Run(heard)
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
            self._queues.add(behind, piece, "", events, "disconnect")

    def begin_with(self, subscriber: Subscriber, pieces: Iterator[Piece]) -> None:
        """Let a replay wait for a subscriber, before everything that comes."""
        self._queues.begin_with(subscriber, pieces)

    def ping(self, subscriber: Subscriber) -> None:
        """Send a comment, unless bytes are under way anyway."""
        piece = subscriber.encoding.ping
        behind = send_all([subscriber], piece)
        if not behind or subscriber.sink is None:
            return
        if behind[0][1] != QUEUE or subscriber.backlog is None:
            self._queues.add(behind, piece, "", 0, "disconnect")

    def _in_order(self, run: Run) -> None:
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

    def _to_single(self, run: Run, patterns: bool) -> None:
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
                        Replayed(run.channel, event, id_alone(topic, positions[place], event))
                        for event, positions in zip(run.events, run.positions, strict=True)
                    ]
                self._metrics.deliveries += len(recipients) * len(events)
                if self._slices.wants(audience, len(recipients)):
                    self._slices.add(audience, recipients, encoding, run.channel, events)
                else:
                    piece = encoding.encode(events)
                    if behind := send_all(recipients, piece):
                        self._queues.add_shared(behind, encoding, piece, run.channel, events)

    def _to_joint(self, run: Run) -> None:
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
                own = self._ids.own(topic, run.topics, encoding, recipients)
                in_turns = self._turns.wants(len(recipients))
                if len(own) != len(recipients):
                    events = [
                        Replayed(run.channel, event, joint_id(topic, positions[place], event))
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
        self._ids.delivered(run)

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
            self._queues.add_shared(behind, encoding, piece, channel, events)

    def _to_own(self, run: Run, encoding: Encoding, recipients: set[Subscriber], in_turns: bool) -> None:
        """To those whose ids are their own."""
        bodies = encoding.bodies(run.channel, run.events)
        if not in_turns:
            self._send_own(run, encoding, bodies, self._ids.of(run), recipients)
        elif self._ids.need_care:
            # These ids are made of what is so now. It is rare, and lasts for seconds.
            self._turns.finish()
            self._send_own(run, encoding, bodies, self._ids.of(run), recipients)
        else:
            self._turns.add(recipients, partial(self._send_own, run, encoding, bodies, self._ids.of_now(run)))

    def _send_own(
        self,
        run: Run,
        encoding: Encoding,
        bodies: Sequence[bytes],
        ids_of: IdsOf,
        recipients: Collection[Subscriber],
    ) -> None:
        """Send the same bodies, each behind the stream's own id."""
        size = sum(map(len, bodies))
        shared = encoding.join(bodies, [None] * len(bodies)) if size > LARGE and len(bodies) == 1 else None
        first = [b""] if shared is not None else bodies
        places: dict[tuple[Topic, ...], Sequence[str | None]] = {}
        pieces: dict[Alike, bytes] = {}
        behind: dict[Alike, list[Behind]] = {}
        for subscriber in recipients:
            topics, suffix = subscriber.topics, subscriber.suffix
            alike: Alike = topics
            if suffix is NO_SUFFIX:
                piece = pieces.get(topics)
                if piece is None:
                    piece = pieces[topics] = encoding.join(first, ids_of(topics))
            else:
                alike = topics, suffix
                ids = places.get(topics)
                if ids is None:
                    ids = places[topics] = ids_of(topics)
                piece = encoding.join(first, suffix.on_all(ids))
            try:
                taken = subscriber.send(piece)
            except OSError:  # as in `send_all`
                taken = 0
            if taken != len(piece):
                pieces[alike] = piece
                behind.setdefault(alike, []).append((subscriber, taken))
            elif shared is not None and (rest := send_all([subscriber], shared)):
                behind.setdefault((), []).extend(rest)
        if not behind:
            return
        if shared is not None:
            self._queues.add_two_parts(run.channel, shared, pieces, behind)
            return
        for alike, some in behind.items():

            def newest(one: Subscriber = some[0][0]) -> bytes:
                return encoding.join(bodies[-1:], one.suffix.on_all(ids_of(one.topics)[-1:]))

            ends = any(event.is_end for event in run.events)
            self._queues.add_run(some, pieces[alike], run.channel, len(bodies), newest, ends)
