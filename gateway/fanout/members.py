"""Who listens: the open streams, from registration to their end."""

import logging
from collections import deque
from collections.abc import Callable, Iterable

from gateway.fanout.ages import Ages
from gateway.fanout.audience import Audience
from gateway.fanout.backlog import Backlog
from gateway.fanout.encodings import Encoding
from gateway.fanout.pinger import Pinger
from gateway.fanout.subscriber import Sink, Subscriber, gone
from gateway.fanout.unsent import Piece, Unsent
from gateway.memory.place import NO_SUFFIX, Suffix, ambiguous_keys
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import Topics
from gateway.settings import Settings
from gateway.throttle import Throttle

logger = logging.getLogger(__name__)

ENDED = "ended"
"""Why a stream ends whose channels are over: the only end after which nobody is to come back."""
_LAST_WORDS = 30.0
"""Seconds a client has to read the end of its stream."""
_RELIEVED = 0.9
"""Of the limit. If memory is short, so much is freed at once: to find those furthest behind takes milliseconds."""


class Members:
    """Knows the subscribers, and the audience of each topic.

    Args:
        settings: times.
        max_streams: limit of open streams.
        topics: told of topics that nobody listens to any more.
        metrics: where streams are counted.
        clock: event loop time.

    Attributes:
        draining: no new subscribers are taken.
        behind: subscribers for which something waits, and perhaps some that have caught up since.
        unsent: the memory of all that waits for clients.
        ambiguous: subscribers with two topics of the same short key.
        special: subscribers whose ids are always their own: those, and those whose ids have a suffix.
        on_leave: called with each subscriber that leaves.
    """

    def __init__(
        self, settings: Settings, max_streams: int, topics: Topics, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self.draining = False
        self.max_streams = max_streams
        self.behind: set[Subscriber] = set()
        self.unsent = Unsent(settings.unsent_total_bytes)
        self.ambiguous: set[Subscriber] = set()
        self.special: set[Subscriber] = set()
        self.pinger = Pinger(settings.ping_interval, clock, self.last_delivery)
        self.on_leave: list[Callable[[Subscriber], None]] = []
        self._topics = topics
        self._metrics = metrics
        self._clock = clock
        self._ages = Ages(settings.max_age, clock)
        self._log_dropped = Throttle(1.0, clock)
        self._stall_timeout = settings.stall_timeout
        self._subscribers: set[Subscriber] = set()
        self._audiences: dict[Topic, Audience] = {}
        self._ending: deque[tuple[float, Sink]] = deque()

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def full(self) -> bool:
        return len(self._subscribers) >= self.max_streams

    @property
    def backlogs(self) -> list[Backlog]:
        """What waits for slow clients."""
        return [subscriber.backlog for subscriber in self.behind if subscriber.backlog is not None]

    def audience(self, topic: Topic) -> Audience | None:
        """Who listens to a topic; None if nobody does."""
        return self._audiences.get(topic)

    def last_delivery(self, subscriber: Subscriber) -> float:
        """When something was last delivered to a subscriber (event loop time)."""
        audiences = self._audiences
        return max(audiences[topic].last_delivery for topic in subscriber.topics)

    def register(self, topics: list[Topic], encoding: Encoding, suffix: Suffix = NO_SUFFIX) -> Subscriber:
        """A new subscriber, whose ids end with that suffix. It gets nothing until it joins."""
        audiences = self._audiences
        for topic in topics:
            audience = audiences.get(topic)
            if audience is None:
                audience = audiences[topic] = Audience(topic)
            audience.size += 1
        subscriber = Subscriber(audiences[topics[0]].alone if len(topics) == 1 else tuple(topics), encoding, suffix)
        if len(topics) > 1 and ambiguous_keys(topics):
            self.ambiguous.add(subscriber)
            self.special.add(subscriber)
        elif suffix is not NO_SUFFIX:
            self.special.add(subscriber)
        self._subscribers.add(subscriber)
        self.pinger.add(subscriber)
        self._ages.add(subscriber)
        self._metrics.streams_opened += 1
        return subscriber

    def include(self, subscriber: Subscriber, new: str) -> None:
        """Have the subscriber's ids say which topics are no longer new. To be called before it joins."""
        subscriber.suffix = subscriber.suffix._replace(new=new)
        self.special.add(subscriber)

    def join(self, subscriber: Subscriber) -> None:
        """From now on the subscriber gets what comes, into its queue until its stream has begun."""
        subscriber.left_at = None
        if subscriber.closed is None:
            for topic in subscriber.topics:
                self._audiences[topic].add(subscriber)

    def part(self, subscriber: Subscriber, left_at: str) -> None:
        """The subscriber gets nothing more until it joins again; `left_at` is the id from which it goes on."""
        subscriber.left_at = left_at
        for topic in subscriber.topics:
            self._audiences[topic].discard(subscriber)

    def leave(self, subscriber: Subscriber, reason: str) -> None:
        """Forget a subscriber; the second time does nothing."""
        if subscriber.closed is not None:
            return
        subscriber.closed = reason
        subscriber.send = gone
        for hook in self.on_leave:
            hook(subscriber)
        self._subscribers.discard(subscriber)
        self.behind.discard(subscriber)
        self.special.discard(subscriber)
        self.ambiguous.discard(subscriber)
        self.pinger.discard(subscriber)
        self._ages.discard(subscriber)
        for topic in subscriber.topics:
            audience = self._audiences[topic]
            audience.discard(subscriber)
            audience.size -= 1
            if not audience.size:
                del self._audiences[topic]
                self._topics.release(topic)
        self._metrics.streams_closed[reason] += 1

    def end(self, subscriber: Subscriber, reason: str, last: bytes = b"") -> None:
        """End a stream, with `last` as its last piece: cleanly, unless it wants to see that it is to come back."""
        self.leave(subscriber, reason)
        if subscriber.sink is not None:
            torn = subscriber.encoding.torn and reason != ENDED
            subscriber.sink.finish(last if torn else last + subscriber.encoding.end, torn)
            # Closed once all is written, which it never is if the client doesn't read.
            self._ending.append((self._clock() + _LAST_WORDS, subscriber.sink))

    def drop(self, subscriber: Subscriber, reason: str) -> None:
        """End a stream at once, as a lost connection would."""
        suppressed = self._log_dropped.allow(reason)
        if suppressed is not None:
            backlog = subscriber.backlog
            logger.info(
                "stream dropped: %s, %d events and %d bytes behind for %.1f s, channels %s%s",
                reason,
                backlog.events if backlog else 0,
                backlog.bytes if backlog else 0,
                self._clock() - backlog.since if backlog else 0,
                ", ".join(topic.name for topic in subscriber.topics[:5]),
                f" ({suppressed} more like this before)" if suppressed else "",
            )
        self.leave(subscriber, reason)
        subscriber.discard()
        if subscriber.sink is not None:
            subscriber.sink.abort()

    def has_joined(self, subscriber: Subscriber) -> bool:
        """Whether it gets what comes."""
        audience = self._audiences.get(subscriber.topics[0])
        return audience is not None and audience.has(subscriber)

    def hold(self, subscriber: Subscriber, piece: bytes) -> None:
        """A transport holds some of what a stream begins with."""
        subscriber.writing = Piece(self.unsent, piece)
        self.behind.add(subscriber)
        if self.unsent.full:
            self.make_room()

    def make_room(self) -> None:
        """Free memory of what waits for clients: streams are ended, those furthest behind first."""
        enough = int(self.unsent.limit * _RELIEVED)
        while self._ending and self.unsent.bytes > enough:
            self._ending.popleft()[1].abort()
        waiting = sorted(self.behind, key=lambda each: each.behind)
        while waiting and self.unsent.bytes > enough:
            self.drop(waiting.pop(), "unsent_total")

    def all(self) -> list[Subscriber]:
        """All that are registered."""
        return list(self._subscribers)

    def of(self, topic: Topic) -> Iterable[Subscriber]:
        """Those that listen to a topic, whether they have joined or not."""
        return [subscriber for subscriber in self._subscribers if topic in subscriber.topics]

    def sweep(self) -> list[Subscriber]:
        """Drop what stands still; returns those that are old enough to end. To be called every second or so."""
        now = self._clock()
        while self._ending and self._ending[0][0] < now:
            self._ending.popleft()[1].abort()
        for subscriber in list(self.behind):
            if subscriber.backlog is None:
                if subscriber.writing is None:
                    self.behind.discard(subscriber)
            elif subscriber.backlog.moved:
                subscriber.backlog.moved = False
                subscriber.backlog.since = now
            elif self._stall_timeout and now - subscriber.backlog.since > self._stall_timeout:
                self.drop(subscriber, "stalled")
        return self._ages.due()
