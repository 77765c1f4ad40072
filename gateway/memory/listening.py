"""What one connection to Redis has heard: the era, and which message counts on which topics."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from gateway.memory.glob import compile_glob
from gateway.memory.history import History
from gateway.memory.hole import LOST, Hole
from gateway.memory.place import (
    NO_SUFFIX,
    NOWHERE,
    Suffix,
    ambiguous_keys,
    format_era,
    format_part,
    format_place,
)
from gateway.memory.position import Position
from gateway.memory.tick import Tick
from gateway.memory.topic import State, Topic

Key: TypeAlias = tuple[bool, bytes]
"""Whether it is a pattern, and its name in Redis."""

_MAX_MATCHES = 10_000
_MAX_FOREIGN = 1_000


class ServerChanged(Exception):
    """This connection no longer leads to the server that counts; says why it counts as lost."""


class OutOfStep(Exception):
    """Redis has sent something that could not come here: what follows can't be counted."""


class Listening:
    """Counts what Redis sends, in the order in which it is read.

    Attributes:
        topics: by their names in Redis; `want` and `drop` keep it.
        era: the generation and the newest tick; None until the first tick on this connection.
        era_text: what ids begin with in this era.
        since: the first tick on this connection: everything later was heard; None before it.
        lineage: the generations before the present one, and where each ended.
        loud: the topics that had a message since the newest tick.
        uncounted: the topics that are open without positions, because Redis refuses to count.
        ticks: how many have been heard.
        epoch: counts the connections.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.topics: dict[Key, Topic] = {}
        self.era: tuple[int, int] | None = None
        self.era_text = NOWHERE
        self.since: Position | None = None
        self.lineage: Mapping[int, int] = {}
        self.loud: dict[Topic, None] = {}
        self.ticks = 0
        self.epoch = 0
        self._identity = ""
        self._newest = 0  # number of Redis' clock in this era
        self._past = 0  # the generation of what was heard last, on any connection
        self._ended: set[int] = set()
        self._suspect = 0
        self._foreign: set[int] = set()
        self._channels: set[bytes] = set()
        self._patterns: dict[bytes, re.Pattern[bytes]] = {}
        self._matches: dict[bytes, tuple[Key, ...]] = {}
        # The other copies of the newest message, which follow it.
        self._copies: list[Key] = []
        self._copied = b""
        # Confirmed, and waiting for a tick.
        self._confirmed: dict[Topic, None] = {}
        self.uncounted: dict[Topic, None] = {}

    def connect(self, identity: str) -> None:
        """A new connection, to the server of that identity; nothing is subscribed to on it yet."""
        self.epoch += 1
        self._identity = identity
        self.era = self.since = None
        self.era_text = NOWHERE
        self._channels.clear()
        self._patterns.clear()
        self._matches.clear()
        self._copies.clear()
        self._confirmed.clear()
        self.uncounted.clear()
        self.loud.clear()

    def lose(self) -> None:
        """The connection is lost: every topic has a hole from here on, until it is open again."""
        for topic in self.topics.values():
            if topic.state is State.OPEN:
                assert self.era is not None
                topic.lost_at = topic.position(self.era)
            topic.state = State.WANTED
            topic.refusal = ""
            if not topic.is_pattern:
                topic.over = None
        self.connect("")

    def want(self, key: Key, topic: Topic) -> None:
        self.topics[key] = topic

    def drop(self, key: Key) -> None:
        """Nobody listens to the topic any more; its past is forgotten."""
        topic = self.topics.pop(key)
        topic.ring.clear()
        self._confirmed.pop(topic, None)
        self.uncounted.pop(topic, None)
        self.loud.pop(topic, None)

    def subscribed(self, key: Key, last_reply: bool) -> None:
        """Redis has answered a request for a topic.

        Args:
            last_reply: no other is to come: an answer to an earlier request must not speak for one that was sent
                after the topic had been given up.
        """
        self._hear(key, True)
        topic = self.topics.get(key)
        if topic is not None and last_reply and not topic.heard:
            topic.state = State.CONFIRMED
            topic.refusal = ""
            self._confirmed[topic] = None

    def unsubscribed(self, key: Key) -> None:
        self._hear(key, False)

    @property
    def waiting(self) -> bool:
        """Whether a tick is needed to open something."""
        return bool(self._confirmed) or bool(self.uncounted)

    def tick(self, tick: Tick) -> list[Topic]:
        """A tick has come; returns the topics that it opens.

        Raises:
            ServerChanged: it comes from another server, or from another generation.
        """
        if not self._identity:
            return []  # this user may not ask who the server is: nothing can be counted
        if tick.identity != self._identity:
            self._suspect = tick.generation
            raise ServerChanged("another server is the master now")
        if self.era is None:
            self._begin(tick)
        elif tick.generation != self.era[0]:
            raise ServerChanged("Redis' data has begun a new generation")
        self.ticks += 1
        self._newest = tick.number
        self.era = era = tick.generation, tick.number
        self.era_text = format_era(era)
        self.loud.clear()
        now = Position(*era)
        if self.since is None:
            self.since = now
        opened = [*self._confirmed, *self.uncounted]
        for topic in opened:
            topic.state = State.OPEN
            if topic.ring.since is None:
                topic.ring.begin(now)
            elif topic.lost_at is not None and topic.lost_at < now:
                self._history.append(topic.ring, Hole(topic.lost_at, now, LOST))
            topic.lost_at = None
        self._confirmed.clear()
        self.uncounted.clear()
        return opened

    def open_uncounted(self) -> list[Topic]:
        """Redis refuses to count, but delivers: what is confirmed opens without positions."""
        opened = list(self._confirmed)
        for topic in opened:
            topic.state = State.UNCOUNTED
        self.uncounted.update(self._confirmed)
        self._confirmed.clear()
        return opened

    def heard(self, key: Key, channel: bytes, payload: bytes) -> tuple[Topic, ...] | None:
        """A message has come through a subscription.

        Redis sends one copy of a PUBLISH for the channel, then one for each pattern that matches, with nothing in
        between (pubsub.c, pubsubPublishMessage). The first copy counts for all topics.

        Returns:
            The topics on which it is heard; None for another copy of the message before.

        Raises:
            OutOfStep: it isn't the copy that has to follow.
        """
        if self._copies:
            if key not in self._copies or channel != self._copied:
                raise OutOfStep(f"a copy on {channel!r} did not come")
            self._copies.remove(key)
            return None
        if not self._patterns:
            topic = self.topics.get(key)
            return (topic,) if topic is not None and topic.heard else ()
        keys = self._matches.get(channel)
        if keys is None:
            keys = self._match(channel)
        if key not in keys:
            raise OutOfStep(f"a message on {channel!r} came through {key[1]!r}")
        if len(keys) > 1:
            self._copies = [each for each in keys if each != key]
            self._copied = channel
        topics = self.topics
        return tuple(topic for each in keys if (topic := topics.get(each)) is not None and topic.heard)

    def count(self, topic: Topic, durable: int) -> Position | None:
        """The position of a message that has come on a topic; None if Redis doesn't count.

        Args:
            durable: its number, or 0 for a plain one.
        """
        era = self.era
        if era is None or topic.state is not State.OPEN:
            return None
        if topic.last is None or topic.last[:2] != era:
            self.loud[topic] = None
        return topic.count(era, durable)

    def has_heard(self, tick: Tick) -> bool:
        """Whether it is a tick from before the newest: Redis publishes each once, but others may do so again."""
        return self.era is not None and (tick.generation, tick.number) <= self.era

    def is_foreign(self, tick: Tick) -> bool:
        """Whether it is a tick of a server that this connection was given up for before, and which isn't the master.

        While there is none of this connection's own yet, one that has come from there just now says no more.
        """
        known = tick.generation in self._foreign or (self.era is None and tick.generation == self._suspect)
        return known and tick.identity != self._identity

    def is_new(self, generation: int, number: int) -> bool:
        """A durable message has come; returns whether it belongs to this database, and comes for the first time.

        Databases of one server share Pub/Sub, and each has generations of its own. Which one a message belongs to is
        known once a connection was given up for it, and the next one had the same generation as before.

        Raises:
            ServerChanged: it is of another generation.
        """
        if self.era is None:
            return True
        if generation == self.era[0]:
            if number <= self._newest:
                return False
            self._newest = number
            return True
        if generation < self.era[0] or generation in self._foreign:
            return False
        self._suspect = generation
        raise ServerChanged("a message of another generation has come")

    def id_of(self, topics: Sequence[Topic], suffix: Suffix = NO_SUFFIX) -> str:
        """The id of a stream that has had everything that was heard on these topics."""
        if suffix is not NO_SUFFIX:
            return suffix.on(self.id_of(topics))
        era = self.era
        if len(topics) == 1 and era is not None and topics[0].state is State.OPEN:  # as almost always
            last = topics[0].last
            return (
                self.era_text if last is None or last[:2] != era else self.era_text + format_part(topics[0].key, last)
            )
        if era is None or any(topic.state is not State.OPEN for topic in topics):
            return NOWHERE
        loud = [topic for topic in topics if topic.last is not None and topic.last[:2] == era]
        if not loud:
            return self.era_text
        return format_place(era, keyed(topics, {topic: topic.position(era) for topic in loud}))

    def _begin(self, tick: Tick) -> None:
        if tick.generation in self._ended:
            raise ServerChanged("it is an old master, which has been replaced")
        self._ended.update(tick.lineage)
        if self._past and self._past != tick.generation and self._past not in tick.lineage:
            # Redis' data isn't what this worker has heard before, nor what came of it.
            for topic in self.topics.values():
                topic.ring.clear()
                topic.lost_at = None
        if self._suspect and self._past == tick.generation:
            if len(self._foreign) >= _MAX_FOREIGN:
                self._foreign.clear()
            self._foreign.add(self._suspect)
        self._suspect = 0
        self._foreign.discard(tick.generation)
        self._past = tick.generation
        self.lineage = tick.lineage

    def _hear(self, key: Key, hears: bool) -> None:
        is_pattern, name = key
        if not is_pattern:
            (self._channels.add if hears else self._channels.discard)(name)
            self._matches.pop(name, None)
            return
        if hears:
            self._patterns[name] = compile_glob(name)
        else:
            self._patterns.pop(name, None)
        self._matches.clear()

    def _match(self, channel: bytes) -> tuple[Key, ...]:
        keys: list[Key] = [(False, channel)] if channel in self._channels else []
        keys += [(True, name) for name, glob in self._patterns.items() if glob.fullmatch(channel)]
        if len(self._matches) >= _MAX_MATCHES:
            self._matches.clear()
        self._matches[channel] = tuple(keys)
        return self._matches[channel]


def keyed(topics: Iterable[Topic], positions: Mapping[Topic, Position]) -> list[tuple[str, Position]]:
    """The positions of some of a stream's topics, by what stands for each in the stream's ids."""
    ambiguous = ambiguous_keys(topics)
    return [
        (topic.long_key if topic.key in ambiguous else topic.key, position) for topic, position in positions.items()
    ]
