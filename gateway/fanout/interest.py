"""The topics a worker wants from Redis: intent, recorded at once and reconciled later.

The hub records, the source of messages reads; neither knows the other. Everything that changes the record is
synchronous: an `await` between "is this the first subscriber?" and registering it is how subscriptions get lost.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator

from gateway.fanout.topic import Topic

_PLAIN = re.compile(r"[^*?\[\\]*")


class TooManyTopics(Exception):
    """The worker's limit of different channels and patterns is reached."""


class Interest:
    """Which topics are wanted.

    Args:
        max_topics: limit of topics, wanted and lingering together.
        linger: seconds a topic nobody wants any more is kept.
        clock: event loop time.

    Attributes:
        changed: set when there is something to reconcile; the source clears it.
    """

    def __init__(self, max_topics: int, linger: float, clock: Callable[[], float]) -> None:
        self._max_topics = max_topics
        self._linger = linger
        self._clock = clock
        self._topics: dict[tuple[str, bool], Topic] = {}
        self._new: dict[Topic, None] = {}
        # In the order of their deadlines, because all linger equally long.
        self._idle: OrderedDict[Topic, float] = OrderedDict()
        self._given_up: list[Topic] = []
        self.changed = asyncio.Event()
        # What the names begin with that a pattern can match, as far as it is certain.
        self._prefixes: dict[Topic, str] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def want(self, name: str, is_pattern: bool) -> Topic:
        """The topic of that name, to be subscribed if it isn't yet.

        Raises:
            TooManyTopics: it would be one too many; lingering ones are given up first.
        """
        topic = self._topics.get((name, is_pattern))
        if topic is not None:
            self._idle.pop(topic, None)
            if topic.refusal is not None:  # permissions change; asking again is cheap
                topic.refusal = None
                self._new[topic] = None
                self.changed.set()
            return topic
        if len(self._topics) >= self._max_topics:
            if not self._idle:
                raise TooManyTopics(f"this worker listens to {self._max_topics} channels already")
            self._give_up(next(iter(self._idle)))
        topic = self._topics[name, is_pattern] = Topic(name, is_pattern)
        self._new[topic] = None
        if is_pattern:
            self._prefixes[topic] = _PLAIN.match(name)[0]  # type: ignore[index]
        self.changed.set()
        return topic

    def find(self, name: str, is_pattern: bool) -> Topic | None:
        return self._topics.get((name, is_pattern))

    def through_pattern(self, channel: str) -> bool:
        """Whether a pattern may match the channel."""
        return any(channel.startswith(prefix) for prefix in self._prefixes.values())

    def release(self, topic: Topic) -> None:
        """Nobody wants the topic now; it lingers."""
        self._idle[topic] = self._clock() + self._linger
        self.changed.set()

    def take_new(self) -> list[Topic]:
        """The topics to subscribe to that were not asked for yet."""
        new, self._new = list(self._new), {}
        return new

    def take_expired(self) -> list[Topic]:
        """The subscribed topics whose lingering is over; they are forgotten here."""
        now = self._clock()
        while self._idle and next(iter(self._idle.values())) <= now:
            self._give_up(next(iter(self._idle)))
        expired, self._given_up = self._given_up, []
        return expired

    def _give_up(self, topic: Topic) -> None:
        del self._idle[topic]
        del self._topics[topic.name, topic.is_pattern]
        self._prefixes.pop(topic, None)
        if topic in self._new:
            del self._new[topic]
        else:
            self._given_up.append(topic)

    def next_expiry(self) -> float | None:
        """Event loop time at which a topic's lingering ends."""
        return next(iter(self._idle.values()), None)

    def unconfirm_all(self) -> None:
        """The connection is gone: all topics are to be asked for again."""
        for topic in self._topics.values():
            topic.confirmed = False
            topic.refusal = None
        self._new = dict.fromkeys(self._topics.values())
        self._given_up.clear()
