"""Which topics a worker stays subscribed to, and which it gives up to make room."""

from itertools import count

import pytest

from gateway.broker.topics import WantedTopics
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.position import Position
from gateway.memory.tick import Tick
from gateway.memory.topic import Topic
from gateway.ports import TooManyTopics
from gateway.settings import Settings


class Wanted:
    """A worker's topics, with a clock of their own."""

    def __init__(self, topics: int = 100, patterns: int = 100, linger: float = 30, prefix: bytes = b"") -> None:
        self.now = 0.0
        self.history = History(Settings(), lambda: self.now)
        self.listening = Listening(self.history)
        self.listening.connect("redis")
        self.topics = WantedTopics(self.listening, self.history, prefix, topics, linger, lambda: self.now, patterns)
        self._ticks = count(1)

    def want(self, *names: str) -> list[Topic]:
        return [self.topics.want(name, "*" in name) for name in names]

    def release(self, *names: str) -> None:
        for name in names:
            topic = self.topics.find(name, "*" in name)
            assert topic is not None
            self.topics.release(topic)

    def open(self, *names: str) -> None:
        for topic in self.want(*names):
            self.listening.subscribed(self.topics.key(topic), True)
        self.listening.tick(Tick(1, next(self._ticks), "redis", {}))

    @property
    def names(self) -> list[str]:
        return [topic.name for topic in self.topics]

    def expired(self) -> list[str]:
        return [name.decode() for _, name in self.topics.take_expired()]


def test_a_topic_lingers_for_so_long_and_no_longer() -> None:
    wanted = Wanted(linger=30)
    wanted.want("a", "b", "c*")
    wanted.topics.take_new()
    wanted.release("a")
    wanted.now = 10
    wanted.release("b", "c*")
    wanted.now = 29.9
    assert wanted.expired() == []
    assert wanted.topics.next_expiry() == 30
    wanted.now = 30
    assert wanted.expired() == ["a"]
    assert wanted.topics.next_expiry() == 40
    wanted.want("b")
    wanted.now = 50
    assert wanted.expired() == ["c*"]
    assert wanted.topics.next_expiry() is None
    assert (wanted.names, wanted.topics.patterns) == (["b"], 0)


def test_what_is_wanted_again_begins_to_linger_anew() -> None:
    wanted = Wanted(linger=30)
    wanted.want("a", "b")
    wanted.topics.take_new()
    wanted.release("a", "b")
    wanted.now = 20
    wanted.want("a")
    assert not wanted.topics.is_idle(wanted.want("a")[0])
    wanted.release("a")
    wanted.now = 30
    assert wanted.expired() == ["b"]
    wanted.now = 50
    assert wanted.expired() == ["a"]


def test_the_one_that_has_lingered_longest_makes_room() -> None:
    wanted = Wanted(topics=3)
    wanted.want("a", "b", "c")
    for name in ("b", "a"):
        wanted.now += 1
        wanted.release(name)
    with pytest.raises(TooManyTopics, match="3 channels"):
        wanted.want("d", "e", "f")
    assert wanted.names == ["c", "d", "e"]
    assert wanted.expired() == [], "Redis has not been asked for them yet"
    assert [topic.name for topic in wanted.topics.take_new()] == ["c", "d", "e"]
    wanted.release("d")
    wanted.want("f")
    assert wanted.expired() == ["d"], "and of this one Redis has to be told"
    assert wanted.names == ["c", "e", "f"]


def test_patterns_have_a_limit_within_that_of_all() -> None:
    wanted = Wanted(topics=4, patterns=2)
    wanted.want("a*", "x", "b*")
    with pytest.raises(TooManyTopics, match="2 patterns"):
        wanted.want("c*")
    wanted.want("a*", "y")
    wanted.release("x", "b*")
    wanted.want("c*")
    assert wanted.names == ["a*", "x", "y", "c*"], "a pattern makes room for a pattern"
    wanted.want("z")
    assert wanted.names == ["a*", "y", "c*", "z"]
    assert wanted.topics.patterns == 2
    with pytest.raises(TooManyTopics, match="4 channels"):
        wanted.want("another")


def test_what_is_given_up_is_forgotten_and_begins_anew() -> None:
    wanted = Wanted(topics=2)
    wanted.open("a", "b")
    [a, b] = wanted.want("a", "b")
    for topic in (a, b):
        position = wanted.listening.count(topic, 0)
        assert position is not None
        wanted.history.append(topic.ring, Entry(position, topic.name, Event(b"x" * 1000)))
    held = wanted.history.bytes
    wanted.release("a")
    wanted.want("c")
    assert wanted.history.bytes == held / 2
    wanted.release("b", "c")
    again, _ = wanted.want("a", "b")
    assert again is not a
    assert not again.heard
    assert again.ring.since is None
    assert a not in wanted.listening.loud
    wanted.open("a")
    assert again.ring.since == Position(1, 2), "nothing is known of what came before"


def test_a_topic_nobody_listens_to_yet_is_kept_for_longer_but_not_for_less() -> None:
    wanted = Wanted(linger=30)
    [topic] = wanted.want("a")
    wanted.topics.keep(topic, 60)
    assert wanted.topics.next_expiry() is None, "somebody listens"
    wanted.release("a")
    wanted.topics.keep(topic, 10)
    assert wanted.topics.next_expiry() == 30
    wanted.topics.keep(topic, 60)
    assert wanted.topics.next_expiry() == 60


def test_topics_that_come_and_go_leave_nothing_behind() -> None:
    wanted = Wanted(linger=1000)
    wanted.want("stays", "goes")
    wanted.release("goes")
    for _ in range(5000):
        wanted.now += 0.125
        wanted.want("flickers")
        wanted.release("flickers")
    assert len(wanted.topics._deadlines) < 1100
    assert wanted.topics.next_expiry() == 1000
    wanted.now = 1000
    wanted.topics.take_expired()
    assert wanted.names == ["stays", "flickers"]
    assert wanted.topics.next_expiry() == 1625


def test_a_lost_connection_has_nothing_to_give_up() -> None:
    wanted = Wanted(linger=0)
    wanted.want("a", "b", "c")
    wanted.topics.take_new()
    wanted.release("a", "b")
    wanted.topics.take_expired()
    wanted.release("c")
    wanted.want("d")
    wanted.topics.ask_for_all()
    assert wanted.expired() == [], "it was not asked for on the new connection"
    assert [topic.name for topic in wanted.topics.take_new()] == ["d"]


def test_a_prefix_stands_for_itself() -> None:
    wanted = Wanted(prefix=b"app[1]*:")
    assert wanted.topics.key_of("a*", True) == (True, b"app\\[1\\]\\*:a*")
    assert wanted.topics.key_of("a*", False) == (False, b"app[1]*:a*")
