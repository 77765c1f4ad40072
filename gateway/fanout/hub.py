"""The fan-out: which subscriber gets which bytes."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.fanout.ages import Ages
from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.budget import Budget
from gateway.fanout.contracts import Publication
from gateway.fanout.encoding import Encoding
from gateway.fanout.event import RESERVED_PREFIX, Event, Undeliverable, parse
from gateway.fanout.gaps import gap
from gateway.fanout.handover import export, export_after, take_over
from gateway.fanout.history import History
from gateway.fanout.ids import DurableId
from gateway.fanout.interest import Interest, TooManyTopics
from gateway.fanout.past import Past
from gateway.fanout.pinger import Pinger
from gateway.fanout.policies import Policies
from gateway.fanout.record import TopicRecord
from gateway.fanout.sending import Behind, send_all
from gateway.fanout.slices import Slices
from gateway.fanout.subscriber import QUEUE, Sink, Subscriber, gone
from gateway.fanout.throttle import Throttle
from gateway.fanout.topic import Groups, Topic, TopicRefused
from gateway.metrics import Metrics
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_LAST_WORDS = 30.0
"""Seconds a client has to read the end of its stream."""


class TurnedAway(Exception):
    """A stream can't be had just now, and can later.

    Attributes:
        reason: `draining`, `full`, `busy` or `redis_away`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Waiting(NamedTuple):
    """A subscriber that waits for Redis' confirmation, and until when."""

    waiter: asyncio.Future[None]
    deadline: float

    def wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)


class _Run:
    """Events of one channel that go the same way."""

    __slots__ = ("channel", "events", "seen", "topics")

    def __init__(self, publication: Publication, event: Event) -> None:
        self.channel = publication.channel
        self.topics = publication.topics
        self.seen = publication.seen
        self.events = [event]

    def takes(self, publication: Publication) -> bool:
        return (self.channel, self.topics, self.seen) == (publication.channel, publication.topics, publication.seen)


class Hub:
    """Knows the subscribers; hands each message to those it is for.

    Nothing here waits for a client: what it can't take now waits in its own bounded queue.

    Attributes:
        draining: no new subscribers are taken.
        history: what was received lately.
    """

    def __init__(
        self,
        settings: Settings,
        max_streams: int,
        interest: Interest,
        metrics: Metrics,
        clock: Callable[[], float],
        on_mixed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.draining = False
        self.max_streams = max_streams
        self.history = History(settings, clock, on_mixed)
        self.pinger = Pinger(settings.ping_interval, clock, self.ping)
        self._interest = interest
        self._metrics = metrics
        self._clock = clock
        self._ages = Ages(settings.max_age, clock)
        self._budget = Budget(settings.accept_rate, clock)
        self._policies = Policies(settings.overflow)
        self._limits = QueueLimits(settings.queue_events, settings.queue_bytes)
        self._stall_timeout = settings.stall_timeout
        self._max_payload_bytes = settings.max_payload_bytes
        self._max_id_bytes = settings.max_id_bytes
        self._subscribe_timeout = settings.subscribe_timeout
        self._subscribers: set[Subscriber] = set()
        self._behind: set[Subscriber] = set()
        self._ending: deque[tuple[float, Sink]] = deque()
        # No timer for each: thousands may wait for the same answer of Redis.
        self._waiting: dict[Subscriber, _Waiting] = {}
        self._log_refused = Throttle(1.0, clock)
        self._last_event: Event | None = None
        self._slices = Slices(self._queue_slice)

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def backlogs(self) -> list[Backlog]:
        """What waits for slow clients."""
        return [subscriber.backlog for subscriber in self._behind if subscriber.backlog is not None]

    @property
    def full(self) -> bool:
        return len(self._subscribers) >= self.max_streams

    def subscribe(self, channels: Iterable[str], patterns: Iterable[str], encoding: Encoding) -> Subscriber:
        """Register a subscriber: Redis is asked for what it wants. It gets nothing until it joins.

        Raises:
            TurnedAway: draining, or a limit of this worker is reached.
        """
        if self.draining:
            raise TurnedAway("draining")
        if self.full:
            raise TurnedAway("full")
        if not self._budget.take():
            raise TurnedAway("busy")
        topics: list[Topic] = []
        try:
            topics.extend(self._interest.want(name, False) for name in channels)
            topics.extend(self._interest.want(pattern, True) for pattern in patterns)
        except TooManyTopics:
            self._release(topics)
            raise TurnedAway("full") from None
        subscriber = Subscriber(topics[0].as_one() if len(topics) == 1 else tuple(topics), encoding)
        for topic in topics:
            topic.size += 1
        self._subscribers.add(subscriber)
        self.pinger.add(subscriber)
        self._ages.add(subscriber)
        self._metrics.streams_opened += 1
        return subscriber

    async def confirmed(self, subscriber: Subscriber) -> None:
        """Wait until Redis has confirmed all it wants: what is published from then on is heard.

        Raises:
            TurnedAway: not within the setting `subscribe_timeout`, or it has left before; the subscriber is gone.
            TopicRefused: Redis refuses one of its topics; the subscriber is gone.
        """
        loop = asyncio.get_running_loop()
        deadline = self._clock() + self._subscribe_timeout
        try:
            # A connection lost meanwhile takes confirmations back, hence the loop.
            while topic := next((topic for topic in subscriber.topics if not topic.confirmed), None):
                if topic.refusal is not None:
                    self.leave(subscriber, "refused")
                    raise TopicRefused(topic.refusal)
                if self.draining or subscriber.closed is not None or self._clock() >= deadline:
                    reason = "draining" if self.draining else "redis_away"
                    self.leave(subscriber, reason)
                    raise TurnedAway(reason)
                waiter = loop.create_future()
                self._waiting[subscriber] = _Waiting(waiter, deadline)
                await topic.wait_answered(waiter)
        except asyncio.CancelledError:
            self.leave(subscriber, "client")
            raise
        finally:
            self._waiting.pop(subscriber, None)

    def drain(self) -> list[Subscriber]:
        """Take nobody any more, and let those go who still wait for Redis.

        Returns:
            Those whose streams are to be ended.
        """
        self.draining = True
        for waiting in self._waiting.values():
            waiting.wake()
        return list(self._subscribers)

    def join(self, subscriber: Subscriber) -> None:
        """From now on the subscriber gets what comes, into its queue until its stream has begun."""
        if subscriber.closed is None:
            for topic in subscriber.topics:
                topic.add(subscriber)

    def leave(self, subscriber: Subscriber, reason: str) -> None:
        """Forget a subscriber; the second time does nothing."""
        if subscriber.closed is not None:
            return
        subscriber.closed = reason
        subscriber.send = gone
        if (waiting := self._waiting.get(subscriber)) is not None:
            waiting.wake()
        self._subscribers.discard(subscriber)
        self._behind.discard(subscriber)
        self.pinger.discard(subscriber)
        self._ages.discard(subscriber)
        for topic in subscriber.topics:
            topic.discard(subscriber)
            topic.size -= 1
            if not topic.size:
                topic.forget_tuple()
        self._release(subscriber.topics)
        self._metrics.streams_closed[reason] += 1

    def end(self, subscriber: Subscriber, reason: str, last: bytes = b"") -> None:
        """End a stream cleanly, with `last` as its last frame."""
        self.leave(subscriber, reason)
        if subscriber.sink is not None:
            encoding = subscriber.encoding
            subscriber.sink.finish((encoding.wrap(last) if last else b"") + encoding.end)
            # Closed once all is written, which it never is if the client doesn't read.
            self._ending.append((self._clock() + _LAST_WORDS, subscriber.sink))

    def drop(self, subscriber: Subscriber, reason: str) -> None:
        """End a stream at once, as a lost connection would."""
        backlog = subscriber.backlog
        logger.info(
            "stream dropped: %s, %d events and %d bytes behind for %.1f s, channels %s",
            reason,
            backlog.events if backlog else 0,
            backlog.bytes if backlog else 0,
            self._clock() - backlog.since if backlog else 0,
            ", ".join(topic.name for topic in subscriber.topics[:5]),
        )
        self.leave(subscriber, reason)
        if subscriber.sink is not None:
            subscriber.sink.abort()

    @property
    def newest(self) -> DurableId:
        """The newest durable id known."""
        return self.history.clock

    @property
    def heard(self) -> DurableId:
        """Every durable message up to this id, on channels that were subscribed to, has been received."""
        return self.history.heard

    @property
    def place(self) -> int:
        """Where what was received last stands in the order."""
        return self.history.seq

    def export(self, channels: Collection[str] | None, after: str | None, room: int) -> list[bytes]:
        """What another worker can use of what this one knows, in parts.

        Args:
            channels: which it asks about; None: all.
            after: the id after which it wants to know what came; None: all that is recent.
            room: bytes of events that may be told.
        """
        topics: Iterable[Topic] = self._interest
        if channels is not None:
            topics = [topic for name in channels if (topic := self._interest.find(name, False)) is not None]
        if after is None:
            return export(self.history, topics, self._clock(), room)
        return export_after(self.history, topics, after, room)

    def take_over(self, topics: Sequence[Topic], answers: Iterable[list[TopicRecord]]) -> set[str]:
        """Take over what other workers know of topics that are not opened yet; returns the channels they knew."""
        return take_over(self.history, topics, answers, self._clock())

    def caught_up(self, topics: Sequence[Topic]) -> None:
        """What has come on those topics meanwhile is delivered; from now on they are heard with all others."""
        self.history.end_stretch(topics)

    def opened(self, topic: Topic) -> None:
        """Redis has confirmed the topic."""
        self.history.open(topic)
        topic.confirm()

    def refused(self, topic: Topic, why: str) -> None:
        """Redis does not let us subscribe to the topic: nobody may go on as if something could still come."""
        topic.refuse(why)
        members = [member for groups in (topic.single, topic.joint) for group in groups.values() for member in group]
        for subscriber in members:
            self.end(subscriber, "refused")

    def given_up(self, topic: Topic) -> None:
        """The topic is not subscribed to any more."""
        others = {other.name for other in self._interest if not other.is_pattern} if topic.is_pattern else ()
        self.history.close(topic, others)

    def interrupted(self, pasts: Mapping[str, Past] | None) -> None:
        """The connection to Redis was lost and is back: fill the hole where that is possible, else tell of it.

        Args:
            pasts: what Redis kept of the channels since then; None if it could not be asked.
        """
        topics = list(self._interest)
        # Along the one clock, as they were published: the last id a client has seen stands for all before it.
        missed = [
            (event.durable, topic, event)
            for topic in topics
            if (past := _past(pasts, topic))
            for event in past.events
        ]
        for _, topic, event in sorted(missed, key=lambda entry: entry[0] or DurableId(0, 0)):
            self._deliver_kept(topic, event)
        for topic in topics:
            past = _past(pasts, topic)
            # A channel on which nothing but durable messages was seen has lost nothing that isn't filled now.
            filled = past is not None and past.pure and not self.history.chain(topic.name).plain
            if not filled or (past is not None and past.gap is not None):
                reason = past.gap if past is not None and past.gap is not None else "redis_lost"
                event = gap(topic.name, reason, None)
                self.history.record_gap(topic, event)
                self._metrics.gaps[reason] += topic.size
                self._fan_out(topic.name, (topic,), (), [event], self._clock(), (_single, _joint))

    def deliver(self, batch: Sequence[Publication]) -> None:
        """Hand out what arrived together.

        A client of one channel gets one write for all of it. A client of several gets the events in the order in
        which they were published, so that the last id it has seen stands for all that came before.
        """
        in_order: list[_Run] = []
        for publication in batch:
            event = self._event(publication)
            if event is None:
                continue
            if in_order and in_order[-1].takes(publication):
                in_order[-1].events.append(event)
            else:
                in_order.append(_Run(publication, event))
        now = self._clock()
        if len(in_order) == 1:
            run = in_order[0]
            self._fan_out(run.channel, run.topics, run.seen, run.events, now, (_single, _joint))
            return
        by_channel: dict[tuple[str, tuple[Topic, ...], tuple[Topic, ...]], list[Event]] = {}
        for run in in_order:
            by_channel.setdefault((run.channel, run.topics, run.seen), []).extend(run.events)
            self._fan_out(run.channel, run.topics, run.seen, run.events, now, (_joint,))
        for (channel, topics, seen), events in by_channel.items():
            self._fan_out(channel, topics, seen, events, now, (_single,))

    def ping(self, subscriber: Subscriber) -> None:
        """Send a comment, unless bytes are under way anyway."""
        piece = subscriber.encoding.ping
        behind = send_all([subscriber], piece)
        if not behind or subscriber.sink is None:
            return
        taken = behind[0][1]
        if taken != QUEUE:
            subscriber.sink.send_rest(piece[taken:])
        elif subscriber.backlog is None:
            subscriber.backlog = Backlog(self._limits, self._clock())
            subscriber.backlog.add(piece, 0, "", "disconnect")
            self._behind.add(subscriber)
            subscriber.sink.wake()

    def sweep(self) -> None:
        """End streams that stand still or are old, and forget old events; to be called every second or so."""
        self.history.sweep()
        for subscriber in self._ages.due():
            self.end(subscriber, "max_age")
        now = self._clock()
        for waiting in self._waiting.values():
            if waiting.deadline <= now:
                waiting.wake()
        while self._ending and self._ending[0][0] < now:
            self._ending.popleft()[1].abort()
        for subscriber in list(self._behind):
            if subscriber.backlog is None:
                self._behind.discard(subscriber)
            elif self._stall_timeout and now - subscriber.backlog.since > self._stall_timeout:
                self.drop(subscriber, "stalled")

    def _event(self, publication: Publication) -> Event | None:
        """The event of a publication, with its id and kept; None if there is nothing to deliver."""
        channel, payload, topics, seen = publication
        if channel.startswith(RESERVED_PREFIX):
            return None
        if seen:  # the rest of the publication before, for topics whose share came later
            if self._last_event is not None:
                self.history.keep(channel, topics, self._last_event)
            return self._last_event
        self._metrics.messages += 1
        self._last_event = None
        try:
            event = parse(payload, self._max_payload_bytes, self._max_id_bytes)
        except Undeliverable as refusal:
            self._refuse(channel, refusal)
            return None
        except Exception:  # a fault of ours: it must not cost the messages that came with this one
            logger.exception("message on %r could not be read", channel)
            self._metrics.refused_messages["fault"] += 1
            return None
        self._last_event = self.history.record(channel, topics, event, payload)
        return self._last_event

    def _deliver_kept(self, topic: Topic, event: Event) -> None:
        recorded = self.history.record(topic.name, (topic,), event, event.frame)
        if recorded is not None:
            self._metrics.recovered += 1
            self._fan_out(topic.name, (topic,), (), [recorded], self._clock(), (_single, _joint))

    def _fan_out(
        self,
        channel: str,
        topics: tuple[Topic, ...],
        seen: tuple[Topic, ...],
        events: list[Event],
        now: float,
        kinds: tuple[Callable[[Topic], Groups], ...],
    ) -> None:
        pieces: dict[Encoding, bytes] = {}
        behind: list[Behind] = []
        count = len(events)
        for topic in topics:
            topic.last_delivery = now
            for kind in kinds:
                for encoding, members in kind(topic).items():
                    recipients = _without(members, seen, encoding) if seen else members
                    self._metrics.deliveries += len(recipients) * count
                    if kind is _single and self._slices.wants(topic, len(recipients)):
                        self._slices.add(topic, recipients, encoding, channel, events)
                        continue
                    piece = pieces.get(encoding)
                    if piece is None:
                        piece = pieces[encoding] = encoding.encode(channel, events)
                    behind += send_all(recipients, piece)
            seen = (*seen, topic)
        if behind:
            self._queue(behind, pieces, channel, events, now)

    def _queue_slice(
        self, behind: list[Behind], encoding: Encoding, piece: bytes, channel: str, events: list[Event]
    ) -> None:
        self._queue(behind, {encoding: piece}, channel, events, self._clock())

    def _queue(
        self,
        behind: list[Behind],
        pieces: dict[Encoding, bytes],
        channel: str,
        events: list[Event],
        now: float,
    ) -> None:
        """Let events wait for those they could not be sent to, or not as a whole."""
        begun = [(subscriber, taken) for subscriber, taken in behind if taken != QUEUE]
        for subscriber, taken in begun:
            if subscriber.sink is not None:
                subscriber.sink.send_rest(pieces[subscriber.encoding][taken:])
        if len(begun) == len(behind):
            return
        policy = self._policies.of(channel)
        if policy == "latest" and len(events) > 1:
            events = events[-1:]
            pieces = {encoding: encoding.encode(channel, events) for encoding in pieces}
        for subscriber, taken in behind:
            if taken != QUEUE:
                continue
            backlog = subscriber.backlog
            if backlog is None:
                backlog = subscriber.backlog = Backlog(self._limits, now)
                self._behind.add(subscriber)
            dropped, gaps = backlog.dropped, backlog.gaps
            if not backlog.add(pieces[subscriber.encoding], len(events), channel, policy):
                self.drop(subscriber, "overflow")
                continue
            self._metrics.dropped_events += backlog.dropped - dropped
            self._metrics.gaps["overflow"] += backlog.gaps - gaps
            if subscriber.sink is not None:
                subscriber.sink.wake()

    def _refuse(self, channel: str, refusal: Undeliverable) -> None:
        self._metrics.refused_messages[refusal.reason] += 1
        if (suppressed := self._log_refused.allow(refusal.reason)) is not None:
            more = f" ({suppressed} more since the last such line)" if suppressed else ""
            logger.warning("message on %r refused, %s: %s%s", channel, refusal.reason, refusal, more)

    def _release(self, topics: Iterable[Topic]) -> None:
        for topic in topics:
            if not topic.size:
                self._interest.release(topic)


def _past(pasts: Mapping[str, Past] | None, topic: Topic) -> Past | None:
    return None if pasts is None or topic.is_pattern else pasts.get(topic.name)


def _single(topic: Topic) -> Groups:
    return topic.single


def _joint(topic: Topic) -> Groups:
    return topic.joint


def _without(members: set[Subscriber], seen: tuple[Topic, ...], encoding: Encoding) -> set[Subscriber]:
    """Those who had the message through none of the topics `seen`."""
    return members.difference(*[groups.get(encoding, ()) for topic in seen for groups in (topic.single, topic.joint)])
