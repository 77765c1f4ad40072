"""What a worker wants from Redis: limits, lingering, and what has to be asked for."""

import pytest

from gateway.broker.topics import WantedTopics, glob_escape
from gateway.memory.glob import compile_glob
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.topic import State
from gateway.ports import TooManyTopics
from gateway.settings import Settings


class Wanted:
    """Topics that linger for 5 s, with a clock of their own."""

    def __init__(self, limit: int = 3, max_patterns: int = 2, prefix: bytes = b"") -> None:
        self.now = 100.0
        history = History(Settings(), lambda: self.now)
        self.listening = Listening(history)
        self.topics = WantedTopics(self.listening, history, prefix, limit, 5.0, lambda: self.now, max_patterns)

    def want(self, *names: str) -> None:
        for name in names:
            self.topics.want(name, "*" in name)

    def release(self, *names: str) -> None:
        for name in names:
            self.topics.release(self.topics.want(name, "*" in name))

    def names(self) -> list[str]:
        return [topic.name for topic in self.topics]

    def asked_for(self) -> list[str]:
        return [topic.name for topic in self.topics.take_new()]


def test_redis_is_asked_for_each_topic_once() -> None:
    wanted = Wanted()
    wanted.want("a", "b*", "a")
    assert wanted.topics.changed.is_set()
    assert wanted.asked_for() == ["a", "b*"]
    assert wanted.asked_for() == []
    assert set(wanted.listening.topics) == {(False, b"a"), (True, b"b*")}
    assert len(wanted.topics) == 2
    assert wanted.topics.patterns == 1


def test_a_channel_and_a_pattern_of_the_same_name_are_two_topics() -> None:
    wanted = Wanted()
    channel, pattern = wanted.topics.want("a", False), wanted.topics.want("a", True)
    assert wanted.topics.find("a", False) is channel
    assert wanted.topics.find("a", True) is pattern
    assert channel is not pattern
    assert wanted.topics.find("b", False) is None


def test_after_a_lost_connection_redis_is_asked_for_all() -> None:
    wanted = Wanted()
    wanted.want("a", "b")
    wanted.asked_for()
    wanted.release("a")
    wanted.now += 6
    wanted.want("c*")
    assert wanted.topics.take_expired() == [(False, b"a")]
    wanted.release("b")
    wanted.now += 6
    wanted.topics.want("d", False)
    wanted.topics.want("e", False)
    wanted.topics.ask_for_all()
    assert wanted.asked_for() == wanted.names()


def test_a_refused_topic_is_asked_for_again_when_somebody_wants_it() -> None:
    wanted = Wanted()
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
    wanted = Wanted()
    wanted.want("a")
    wanted.asked_for()
    assert wanted.topics.next_expiry() is None
    wanted.topics.changed.clear()
    wanted.release("a")
    assert wanted.topics.changed.is_set(), "the link has to know when to unsubscribe"
    assert wanted.topics.next_expiry() == 105.0
    wanted.now = 104.9
    assert wanted.topics.take_expired() == []
    wanted.now = 105.0
    assert wanted.topics.take_expired() == [(False, b"a")]
    assert wanted.topics.take_expired() == []
    assert wanted.names() == []
    assert wanted.listening.topics == {}
    assert wanted.topics.next_expiry() is None


def test_a_topic_that_is_wanted_again_stays() -> None:
    wanted = Wanted()
    wanted.release("a")
    topic = wanted.topics.want("a", False)
    assert not wanted.topics.is_idle(topic)
    wanted.now += 100
    assert wanted.topics.take_expired() == []
    wanted.topics.release(topic)
    assert wanted.topics.is_idle(topic)
    assert wanted.topics.next_expiry() == 205.0, "the first deadline counts no more"


def test_what_was_never_asked_for_need_not_be_given_up() -> None:
    wanted = Wanted()
    wanted.release("a")
    wanted.now += 6
    assert wanted.topics.take_expired() == []
    assert wanted.asked_for() == []


def test_the_longest_idle_topic_makes_room() -> None:
    wanted = Wanted(limit=3)
    wanted.release("a")
    wanted.now += 1
    wanted.release("b")
    wanted.want("c")
    wanted.want("d")
    assert wanted.names() == ["b", "c", "d"]
    wanted.want("e")
    assert wanted.names() == ["c", "d", "e"]
    with pytest.raises(TooManyTopics):
        wanted.want("f")
    wanted.want("c")
    assert wanted.names() == ["c", "d", "e"]


def test_patterns_have_a_limit_of_their_own() -> None:
    wanted = Wanted(limit=10, max_patterns=2)
    wanted.want("a*", "b*")
    with pytest.raises(TooManyTopics):
        wanted.want("c*")
    wanted.want("c")
    wanted.release("c", "b*")
    wanted.want("c*")
    assert wanted.names() == ["a*", "c", "c*"], "an idle pattern makes room, not an idle channel"
    assert wanted.topics.patterns == 2
    wanted.release("a*")
    wanted.now += 6
    wanted.topics.take_expired()
    assert wanted.topics.patterns == 1


def test_a_topic_that_nobody_listens_to_can_be_kept_for_longer() -> None:
    wanted = Wanted()
    topic = wanted.topics.want("a", False)
    wanted.topics.keep(topic, 60)
    assert not wanted.topics.is_idle(topic), "somebody listens"
    wanted.topics.release(topic)
    wanted.topics.keep(topic, 1)
    assert wanted.topics.next_expiry() == 105.0, "it is kept for as long anyway"
    wanted.topics.keep(topic, 60)
    assert wanted.topics.next_expiry() == 160.0


def test_deadlines_don_t_pile_up() -> None:
    wanted = Wanted()
    for _ in range(5000):
        wanted.now += 0.001
        wanted.release("a")
        wanted.release("b")
    assert len(wanted.topics._deadlines) < 2000
    assert wanted.topics.next_expiry() == pytest.approx(110.0)
    wanted.now += 4.9995
    assert len(wanted.names()) == 2


@pytest.mark.parametrize("prefix", [b"app:", b"a*", b"[x]?\\^-"])
def test_a_prefix_stands_for_itself(prefix: bytes) -> None:
    wanted = Wanted(prefix=prefix)
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
