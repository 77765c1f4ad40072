"""The fan-out: which subscriber gets which bytes."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from gateway.fanout.contracts import Publication
from gateway.fanout.encoding import Encoding
from gateway.fanout.event import RESERVED_PREFIX, Event, Undeliverable, parse
from gateway.fanout.interest import Interest, TooManyTopics
from gateway.fanout.pinger import Pinger
from gateway.fanout.subscriber import QueueLimits, Subscriber
from gateway.fanout.throttle import Throttle
from gateway.fanout.topic import Topic, TopicRefused
from gateway.metrics import Metrics
from gateway.settings import Settings

logger = logging.getLogger(__name__)


class TurnedAway(Exception):
    """A stream can't be had just now, and can later.

    Attributes:
        reason: `draining`, `full` or `redis_away`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Hub:
    """Knows the subscribers; hands each message to those it is for.

    Nothing here waits for a client: what it can't take now waits in its own bounded queue.

    Attributes:
        draining: no new subscribers are taken.
    """

    def __init__(
        self,
        settings: Settings,
        max_streams: int,
        interest: Interest,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.draining = False
        self.max_streams = max_streams
        self.pinger = Pinger(settings.ping_interval, clock)
        self._interest = interest
        self._metrics = metrics
        self._clock = clock
        self._limits = QueueLimits(settings.queue_events, settings.queue_bytes)
        self._max_payload_bytes = settings.max_payload_bytes
        self._max_id_bytes = settings.max_id_bytes
        self._subscribe_timeout = settings.subscribe_timeout
        self._subscribers: set[Subscriber] = set()
        self._log_refused = Throttle(1.0, clock)

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def subscribers(self) -> list[Subscriber]:
        """Everyone who is connected now."""
        return list(self._subscribers)

    @property
    def full(self) -> bool:
        return len(self._subscribers) >= self.max_streams

    def subscribe(self, channels: Iterable[str], patterns: Iterable[str], encoding: Encoding) -> Subscriber:
        """Register a subscriber; from now on what it wants goes to its queue.

        Raises:
            TurnedAway: draining, or a limit of this worker is reached.
        """
        if self.draining:
            raise TurnedAway("draining")
        if self.full:
            raise TurnedAway("full")
        topics: list[Topic] = []
        try:
            topics.extend(self._interest.want(name, False) for name in channels)
            topics.extend(self._interest.want(pattern, True) for pattern in patterns)
        except TooManyTopics:
            self._release(topics)
            raise TurnedAway("full") from None
        subscriber = Subscriber(tuple(topics), encoding, self._limits)
        for topic in topics:
            topic.add(subscriber)
        self._subscribers.add(subscriber)
        self.pinger.add(subscriber)
        self._metrics.streams_opened += 1
        return subscriber

    async def confirmed(self, subscriber: Subscriber) -> None:
        """Wait until Redis has confirmed all it wants: what is published from then on is heard.

        Raises:
            TurnedAway: not within the setting `subscribe_timeout`; the subscriber is gone.
            TopicRefused: Redis refuses one of its topics; the subscriber is gone.
        """
        if all(topic.confirmed for topic in subscriber.topics):
            return
        try:
            async with asyncio.timeout(self._subscribe_timeout):
                # A connection lost meanwhile takes confirmations back, hence the loop.
                while waiting := [topic for topic in subscriber.topics if not topic.confirmed]:
                    await waiting[0].wait_confirmed()
        except TimeoutError:
            self.leave(subscriber, "redis_away")
            raise TurnedAway("redis_away") from None
        except TopicRefused:
            self.leave(subscriber, "refused")
            raise
        except asyncio.CancelledError:
            self.leave(subscriber, "client")
            raise

    def leave(self, subscriber: Subscriber, reason: str) -> None:
        """Forget a subscriber; the second time does nothing."""
        if subscriber.closed is not None:
            return
        subscriber.closed = reason
        self._subscribers.discard(subscriber)
        self.pinger.discard(subscriber)
        for topic in subscriber.topics:
            topic.discard(subscriber)
        self._release(subscriber.topics)
        self._metrics.streams_closed[reason] += 1

    def end(self, subscriber: Subscriber, reason: str, last: bytes = b"") -> None:
        """End a stream cleanly, with `last` as its last frame."""
        self.leave(subscriber, reason)
        if subscriber.sink is not None:
            encoding = subscriber.encoding
            subscriber.sink.finish((encoding.wrap(last) if last else b"") + encoding.end)

    def drop(self, subscriber: Subscriber, reason: str) -> None:
        """End a stream at once, as a lost connection would."""
        logger.info(
            "stream dropped: %s, %d events and %d bytes behind, channels %s",
            reason,
            subscriber.queued_events,
            subscriber.queued_bytes,
            ", ".join(topic.name for topic in subscriber.topics[:5]),
        )
        self.leave(subscriber, reason)
        if subscriber.sink is not None:
            subscriber.sink.abort()

    def deliver(self, batch: Sequence[Publication]) -> None:
        """Hand out what arrived together: each client gets one write for each channel."""
        runs: dict[tuple[str, tuple[Topic, ...], tuple[Topic, ...]], list[Event]] = {}
        for channel, payload, topics, seen in batch:
            if not seen:
                self._metrics.messages += 1
            if channel.startswith(RESERVED_PREFIX):
                continue
            try:
                event = parse(payload, self._max_payload_bytes, self._max_id_bytes)
            except Undeliverable as refusal:
                if not seen:
                    self._refuse(channel, refusal)
                continue
            except Exception:  # a fault of ours: it must not cost the messages that came with this one
                logger.exception("message on %r could not be read", channel)
                self._metrics.refused_messages["fault"] += 1
                continue
            runs.setdefault((channel, topics, seen), []).append(event)
        now = self._clock()
        for (channel, topics, seen), events in runs.items():
            self._fan_out(channel, topics, seen, events, now)

    def _fan_out(
        self,
        channel: str,
        topics: tuple[Topic, ...],
        seen: tuple[Topic, ...],
        events: list[Event],
        now: float,
    ) -> None:
        # The hot path: per client and message, what stands in the inner loop and nothing else.
        pieces: dict[Encoding, bytes] = {}
        overflowed: list[Subscriber] = []
        count = len(events)
        for topic in topics:
            topic.last_delivery = now
            for encoding, members in topic.groups.items():
                recipients = _without(members, seen, encoding) if seen else members
                piece = pieces.get(encoding)
                if piece is None:
                    piece = pieces[encoding] = encoding.encode(channel, events)
                for subscriber in recipients:
                    if subscriber.queueing:
                        if not subscriber.enqueue(piece, count):
                            overflowed.append(subscriber)
                    else:
                        subscriber.write(piece)
                self._metrics.deliveries += len(recipients) * count
            seen = (*seen, topic)
        for subscriber in overflowed:
            self.drop(subscriber, "overflow")

    def _refuse(self, channel: str, refusal: Undeliverable) -> None:
        self._metrics.refused_messages[refusal.reason] += 1
        if (suppressed := self._log_refused.allow(refusal.reason)) is not None:
            more = f" ({suppressed} more since the last such line)" if suppressed else ""
            logger.warning("message on %r refused, %s: %s%s", channel, refusal.reason, refusal, more)

    def _release(self, topics: Iterable[Topic]) -> None:
        for topic in topics:
            if not topic.size:
                self._interest.release(topic)


def _without(members: set[Subscriber], seen: tuple[Topic, ...], encoding: Encoding) -> set[Subscriber]:
    """Those who had the message through none of the topics `seen`."""
    return members.difference(*[topic.groups.get(encoding, ()) for topic in seen])
