"""What a worker wants from Redis: what has to be asked for, what lingers, and what makes room."""

from itertools import count

import pytest

from gateway.broker.topics import WantedTopics, glob_escape
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.glob import compile_glob
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.position import Position
from gateway.memory.tick import Tick
from gateway.memory.topic import State, Topic
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

    def touch(self, *names: str) -> None:
        """Want each and give it up again: it lingers from now on."""
        for topic in self.want(*names):
            self.topics.release(topic)

    def open(self, *names: str) -> None:
        for topic in self.want(*names):
            self.listening.subscribed(self.topics.key(topic), True)
        self.listening.tick(Tick(1, next(self._ticks), "redis", {}))

    @property
    def names(self) -> list[str]:
        return [topic.name for topic in self.topics]

    def asked_for(self) -> list[str]:
        return [topic.name for topic in self.topics.take_new()]

    def expired(self) -> list[str]:
        return [name.decode() for _, name in self.topics.take_expired()]


def few(topics: int = 3, prefix: bytes = b"") -> Wanted:
    """Few topics, which linger for 5 s, at 100 s."""
    wanted = Wanted(topics, 2, 5.0, prefix)
    wanted.now = 100.0
    return wanted


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


def test_redis_is_asked_for_each_topic_once() -> None:
    wanted = few()
    wanted.want("a", "b*", "a")
    assert wanted.topics.changed.is_set()
    assert wanted.asked_for() == ["a", "b*"]
    assert wanted.asked_for() == []
    assert set(wanted.listening.topics) == {(False, b"a"), (True, b"b*")}
    assert len(wanted.topics) == 2
    assert wanted.topics.patterns == 1


def test_a_channel_and_a_pattern_of_the_same_name_are_two_topics() -> None:
    wanted = few()
    channel, pattern = wanted.topics.want("a", False), wanted.topics.want("a", True)
    assert wanted.topics.find("a", False) is channel
    assert wanted.topics.find("a", True) is pattern
    assert channel is not pattern
    assert wanted.topics.find("b", False) is None


def test_after_a_lost_connection_redis_is_asked_for_all() -> None:
    wanted = few()
    wanted.want("a", "b")
    wanted.asked_for()
    wanted.touch("a")
    wanted.now += 6
    wanted.want("c*")
    assert wanted.topics.take_expired() == [(False, b"a")]
    wanted.touch("b")
    wanted.now += 6
    wanted.topics.want("d", False)
    wanted.topics.want("e", False)
    wanted.topics.ask_for_all()
    assert wanted.asked_for() == wanted.names


def test_a_refused_topic_is_asked_for_again_when_somebody_wants_it() -> None:
    wanted = few()
    wanted.want("a")
    topic = wanted.topics.take_new()[0]
    wanted.topics.changed.clear()
    wanted.want("a")
    assert wanted.asked_for() == []
    topic.state = State.REFUSED
    wanted.want("a")
    assert topic.state is State.WANTED
    assert wanted.asked_for() == ["a"]
    assert wanted.topics.changed.is_set()


def test_a_topic_lingers_from_when_the_last_has_left() -> None:
    wanted = few()
    wanted.want("a")
    wanted.asked_for()
    assert wanted.topics.next_expiry() is None
    wanted.topics.changed.clear()
    wanted.touch("a")
    assert wanted.topics.changed.is_set(), "the link has to know when to unsubscribe"
    assert wanted.topics.next_expiry() == 105.0
    wanted.now = 104.9
    assert wanted.topics.take_expired() == []
    wanted.now = 105.0
    assert wanted.topics.take_expired() == [(False, b"a")]
    assert wanted.topics.take_expired() == []
    assert wanted.names == []
    assert wanted.listening.topics == {}
    assert wanted.topics.next_expiry() is None


def test_a_topic_that_is_wanted_again_stays() -> None:
    wanted = few()
    wanted.touch("a")
    topic = wanted.topics.want("a", False)
    assert not wanted.topics.is_idle(topic)
    wanted.now += 100
    assert wanted.topics.take_expired() == []
    wanted.topics.release(topic)
    assert wanted.topics.is_idle(topic)
    assert wanted.topics.next_expiry() == 205.0, "the first deadline counts no more"


def test_what_was_never_asked_for_need_not_be_given_up() -> None:
    wanted = few()
    wanted.touch("a")
    wanted.now += 6
    assert wanted.topics.take_expired() == []
    assert wanted.asked_for() == []


def test_the_longest_idle_topic_makes_room() -> None:
    wanted = few()
    wanted.touch("a")
    wanted.now += 1
    wanted.touch("b")
    wanted.want("c")
    wanted.want("d")
    assert wanted.names == ["b", "c", "d"]
    wanted.want("e")
    assert wanted.names == ["c", "d", "e"]
    with pytest.raises(TooManyTopics):
        wanted.want("f")
    wanted.want("c")
    assert wanted.names == ["c", "d", "e"]


def test_patterns_have_a_limit_of_their_own() -> None:
    wanted = few(topics=10)
    wanted.want("a*", "b*")
    with pytest.raises(TooManyTopics):
        wanted.want("c*")
    wanted.want("c")
    wanted.touch("c", "b*")
    wanted.want("c*")
    assert wanted.names == ["a*", "c", "c*"], "an idle pattern makes room, not an idle channel"
    assert wanted.topics.patterns == 2
    wanted.touch("a*")
    wanted.now += 6
    wanted.topics.take_expired()
    assert wanted.topics.patterns == 1


def test_a_topic_that_nobody_listens_to_can_be_kept_for_longer() -> None:
    wanted = few()
    topic = wanted.topics.want("a", False)
    wanted.topics.keep(topic, 60)
    assert not wanted.topics.is_idle(topic), "somebody listens"
    wanted.topics.release(topic)
    wanted.topics.keep(topic, 1)
    assert wanted.topics.next_expiry() == 105.0, "it is kept for as long anyway"
    wanted.topics.keep(topic, 60)
    assert wanted.topics.next_expiry() == 160.0


def test_deadlines_don_t_pile_up() -> None:
    wanted = few()
    for _ in range(5000):
        wanted.now += 0.001
        wanted.touch("a")
        wanted.touch("b")
    assert len(wanted.topics._deadlines) < 2000
    assert wanted.topics.next_expiry() == pytest.approx(110.0)
    wanted.now += 4.9995
    assert len(wanted.names) == 2


@pytest.mark.parametrize("prefix", [b"app:", b"a*", b"[x]?\\^-"])
def test_a_prefix_stands_for_itself_in_redis(prefix: bytes) -> None:
    wanted = few(prefix=prefix)
    channel, pattern = wanted.topics.want("news", False), wanted.topics.want("n*", True)
    assert wanted.topics.key(channel) == (False, prefix + b"news")
    is_pattern, name = wanted.topics.key(pattern)
    assert is_pattern
    assert compile_glob(name).fullmatch(prefix + b"news")
    assert not compile_glob(name).fullmatch(b"other" + prefix + b"news")
    assert not compile_glob(name).fullmatch(prefix.replace(b"*", b"x").replace(b"?", b"x") + b"xx")


def test_any_text_stands_for_itself_in_a_glob() -> None:
    every = bytes(range(256))
    assert compile_glob(glob_escape(every)).fullmatch(every)
    assert glob_escape(b"plain.name:1") == b"plain.name:1"
    assert all(not compile_glob(glob_escape(bytes([char]))).fullmatch(b"a") for char in b"*?[]\\^-")
