"""The topics a worker wants from Redis: intent, recorded at once and reconciled later.

Admission records, the link reads; neither knows the other. Everything that changes the record is synchronous: an
`await` between "is this the first subscriber?" and registering it is how subscriptions get lost.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from itertools import count

from gateway.memory.history import History
from gateway.memory.listening import Key, Listening
from gateway.memory.topic import State, Topic
from gateway.ports import TooManyTopics

_STALE_DEADLINES = 1000


class WantedTopics:
    """Which topics are wanted.

    Args:
        listening: told of what is wanted and dropped.
        history: makes their rings.
        prefix: put before every name in Redis.
        max_topics: limit of topics, wanted and lingering together.
        linger: seconds for which a topic without listeners stays subscribed.
        clock: event loop time.
        max_patterns: limit of the patterns among the topics: Redis compares each PUBLISH with all of them.

    Attributes:
        changed: set when there is something to reconcile; the link clears it.
        limit: of topics, wanted and lingering together.
    """

    def __init__(
        self,
        listening: Listening,
        history: History,
        prefix: bytes,
        max_topics: int,
        linger: float,
        clock: Callable[[], float],
        max_patterns: int,
    ) -> None:
        self._listening = listening
        self._history = history
        self._prefix = prefix
        self._pattern_prefix = glob_escape(prefix)
        self.limit = max_topics
        self._linger = linger
        self._clock = clock
        self._topics: dict[tuple[str, bool], Topic] = {}
        self._max_patterns = max_patterns
        self._patterns: dict[Topic, None] = {}
        self._new: dict[Topic, None] = {}
        self._idle: dict[Topic, float] = {}
        # By deadline; those that were wanted again meanwhile are skipped.
        self._deadlines: list[tuple[float, int, Topic]] = []
        self._number = count()
        self._dropped: list[Key] = []
        self.changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def patterns(self) -> int:
        """How many of them are patterns."""
        return len(self._patterns)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def key(self, topic: Topic) -> Key:
        """Its name in Redis."""
        return self.key_of(topic.name, topic.is_pattern)

    def key_of(self, name: str, is_pattern: bool) -> Key:
        return is_pattern, (self._pattern_prefix if is_pattern else self._prefix) + name.encode()

    def want(self, name: str, is_pattern: bool) -> Topic:
        topic = self._topics.get((name, is_pattern))
        if topic is not None:
            self._idle.pop(topic, None)
            if topic.state is State.REFUSED:  # permissions change; asking again is cheap
                topic.state = State.WANTED
                self.ask_again(topic)
            return topic
        if is_pattern and len(self._patterns) >= self._max_patterns:
            if (idle := next((each for each in self._patterns if each in self._idle), None)) is None:
                raise TooManyTopics(f"this worker listens to {self._max_patterns} patterns already")
            self._drop(idle)
        if len(self._topics) >= self.limit:
            if (oldest := self._next_idle()) is None:
                raise TooManyTopics(f"this worker listens to {self.limit} channels already")
            self._drop(oldest)
        topic = self._topics[name, is_pattern] = Topic(name, is_pattern, self._history.ring())
        if is_pattern:
            self._patterns[topic] = None
        self._listening.want(self.key(topic), topic)
        self.ask_again(topic)
        return topic

    def find(self, name: str, is_pattern: bool) -> Topic | None:
        return self._topics.get((name, is_pattern))

    def release(self, topic: Topic) -> None:
        self._linger_until(topic, self._clock() + self._linger)

    def keep(self, topic: Topic, seconds: float) -> None:
        """Nobody listens to the topic yet; stay subscribed to it for at least so long."""
        if topic in self._idle:
            self._linger_until(topic, max(self._idle[topic], self._clock() + seconds))

    def is_idle(self, topic: Topic) -> bool:
        """Whether nobody listens to the topic."""
        return topic in self._idle

    def ask_again(self, topic: Topic) -> None:
        """Redis is to be asked for the topic."""
        self._new[topic] = None
        self.changed.set()

    def take_new(self) -> list[Topic]:
        """The topics that Redis has not been asked for."""
        new, self._new = list(self._new), {}
        return new

    def take_expired(self) -> list[Key]:
        """The names of the topics whose lingering is over; they are forgotten here."""
        now = self._clock()
        while (topic := self._next_idle()) is not None and self._idle[topic] <= now:
            self._drop(topic)
        dropped, self._dropped = self._dropped, []
        return dropped

    def next_expiry(self) -> float | None:
        """Event loop time at which a topic's lingering ends."""
        topic = self._next_idle()
        return None if topic is None else self._idle[topic]

    def ask_for_all(self) -> None:
        """The connection is lost: Redis is to be asked for all topics again."""
        self._new = dict.fromkeys(self._topics.values())
        self._dropped.clear()

    def _linger_until(self, topic: Topic, deadline: float) -> None:
        self._idle[topic] = deadline
        heapq.heappush(self._deadlines, (deadline, next(self._number), topic))
        if len(self._deadlines) > 2 * len(self._idle) + _STALE_DEADLINES:
            self._deadlines = [each for each in self._deadlines if self._idle.get(each[2]) == each[0]]
            heapq.heapify(self._deadlines)
        self.changed.set()

    def _next_idle(self) -> Topic | None:
        while self._deadlines:
            deadline, _, topic = self._deadlines[0]
            if self._idle.get(topic) == deadline:
                return topic
            heapq.heappop(self._deadlines)
        return None

    def _drop(self, topic: Topic) -> None:
        del self._idle[topic]
        del self._topics[topic.name, topic.is_pattern]
        self._patterns.pop(topic, None)
        self._listening.drop(self.key(topic))
        if topic in self._new:
            del self._new[topic]
        else:
            self._dropped.append(self.key(topic))


def glob_escape(text: bytes) -> bytes:
    """The text so that it stands for itself in a Redis glob."""
    return b"".join(b"\\" + bytes([char]) if char in b"*?[]\\^-" else bytes([char]) for char in text)
