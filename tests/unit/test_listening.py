"""Counting: all workers give a message the same position, and say so when they can't."""

from collections.abc import Mapping

import pytest

from gateway.memory.history import History
from gateway.memory.hole import LOST, Hole
from gateway.memory.listening import Key, Listening, OutOfStep, ServerChanged
from gateway.memory.place import NOWHERE, Suffix, parse_place
from gateway.memory.position import Position
from gateway.memory.tick import Tick, parse_tick
from gateway.memory.topic import State, Topic
from gateway.settings import Settings


class Worker:
    """Listening, with topics by name."""

    def __init__(self, *names: str) -> None:
        self.history = History(Settings(), lambda: 0.0)
        self.listening = Listening(self.history)
        self.topics: dict[str, Topic] = {}
        for name in names:
            self.want(name)
        self.listening.connect("server")

    def want(self, name: str) -> None:
        topic = self.topics[name] = Topic(name, "*" in name, self.history.ring())
        self.listening.want(key(name), topic)

    def open(self, tick: int = 1) -> None:
        for name in self.topics:
            self.listening.subscribed(key(name), True)
        self.tick(tick)

    def tick(
        self, number: int, generation: int = 1, identity: str = "server", ended: Mapping[int, int] | None = None
    ) -> list[str]:
        return [topic.name for topic in self.listening.tick(Tick(generation, number, identity, ended or {}))]

    def hear(self, channel: str, through: str | None = None, durable: int = 0) -> list[str] | None:
        topics = self.listening.heard(key(through or channel), channel.encode(), b"")
        if topics is None:
            return None
        for topic in topics:
            self.listening.count(topic, durable)
        return [topic.name for topic in topics]

    def era(self) -> tuple[int, int] | None:
        return self.listening.era

    def since(self) -> Position | None:
        return self.listening.since

    def at(self, name: str) -> tuple[int, ...]:
        assert self.listening.era is not None
        return self.topics[name].position(self.listening.era)[1:]


def key(name: str) -> Key:
    return "*" in name, name.encode()


def test_positions() -> None:
    worker = Worker("a")
    worker.open(5)
    assert worker.at("a") == (5, 0, 0)
    worker.hear("a")
    worker.hear("a")
    assert worker.at("a") == (5, 0, 2)
    worker.hear("a", durable=7)
    assert worker.at("a") == (5, 7, 0)
    worker.hear("a")
    assert worker.at("a") == (5, 7, 1)
    worker.tick(9)
    assert worker.at("a") == (9, 0, 0)


def test_copies_of_one_message_count_once_on_each_topic() -> None:
    worker = Worker("a1", "a*", "*1")
    worker.open()
    assert worker.hear("a1") == ["a1", "a*", "*1"]
    assert worker.hear("a1", through="*1") is None
    assert worker.hear("a1", through="a*") is None
    assert worker.hear("a2", through="a*") == ["a*"]
    assert [worker.at(name) for name in worker.topics] == [(1, 0, 1), (1, 0, 2), (1, 0, 1)]


def test_a_copy_that_does_not_follow_is_noticed() -> None:
    worker = Worker("a1", "a*")
    worker.open()
    worker.hear("a1")
    with pytest.raises(OutOfStep):
        worker.hear("a2", through="a*")
    worker = Worker("a1", "b*")
    worker.open()
    with pytest.raises(OutOfStep):
        worker.hear("a1", through="b*")


def test_the_copies_are_those_of_what_was_subscribed_to_at_this_point() -> None:
    """What Redis was told to give up is still heard until its answer has been read."""
    worker = Worker("a1", "a*")
    worker.open()
    worker.listening.drop(key("a*"))
    assert worker.hear("a1") == ["a1"]
    assert worker.hear("a1", through="a*") is None
    worker.listening.unsubscribed(key("a*"))
    assert worker.hear("a1") == ["a1"]
    assert worker.hear("a1") == ["a1"], "no copy follows any more"


def test_a_topic_is_open_after_its_last_reply_and_a_tick() -> None:
    worker = Worker("a")
    worker.listening.subscribed(key("a"), False)
    assert worker.tick(1) == []
    worker.listening.subscribed(key("a"), True)
    assert worker.listening.waiting
    assert worker.hear("a") == [], "from before the tick, nobody can count it"
    assert worker.tick(2) == ["a"]
    assert worker.topics["a"].state is State.OPEN
    assert worker.topics["a"].ring.since == Position(1, 2)


def test_a_lost_connection_leaves_a_hole_from_where_it_was_lost() -> None:
    worker = Worker("a")
    worker.open()
    worker.hear("a")
    worker.listening.lose()
    worker.listening.connect("server")
    worker.listening.lose()
    worker.listening.connect("server")
    worker.open(8)
    assert worker.topics["a"].ring.after(Position(1, 1)) == [Hole(Position(1, 1, 0, 1), Position(1, 8), LOST)]


def test_whose_ticks_count() -> None:
    worker = Worker("a")
    with pytest.raises(ServerChanged):
        worker.tick(1, identity="another")
    worker.open(5)
    with pytest.raises(ServerChanged):
        worker.tick(6, generation=2)
    with pytest.raises(ServerChanged):
        worker.listening.is_new(2, 6)
    assert worker.listening.is_new(1, 6)


def test_what_is_published_again_moves_nothing() -> None:
    """Whoever may publish can repeat what Redis has signed."""
    worker = Worker("a")
    worker.open(5)
    for number, is_new in ((5, False), (7, True), (7, False), (6, False), (8, True)):
        assert worker.listening.is_new(1, number) is is_new
    worker.tick(9)
    assert not worker.listening.is_new(1, 9)
    for generation, number in ((1, 5), (1, 9), (0, 99)):
        assert worker.listening.has_heard(Tick(generation, number, "server", {}))
    assert not worker.listening.has_heard(Tick(1, 10, "server", {}))


def test_a_replaced_master_is_not_listened_to_again() -> None:
    worker = Worker("a")
    worker.tick(3, generation=2, ended={1: 9})
    worker.listening.lose()
    worker.listening.connect("server")
    with pytest.raises(ServerChanged, match="old master"):
        worker.tick(12, generation=1)


def test_the_past_of_another_history_is_forgotten() -> None:
    worker = Worker("a")
    worker.open()
    worker.hear("a")
    for generation, ended, since in ((2, {1: 4}, Position(1, 1)), (5, {3: 4}, Position(5, 1))):
        worker.listening.lose()
        worker.listening.connect("server")
        worker.listening.subscribed(key("a"), True)
        worker.tick(1, generation=generation, ended=ended)
        assert worker.topics["a"].ring.since == since


def test_ids_name_what_had_a_message_since_the_tick() -> None:
    worker = Worker("a", "b", "c")
    a, b, c = worker.topics.values()
    listening = worker.listening
    assert listening.id_of([a]) == NOWHERE
    worker.open(4)
    assert listening.id_of([a, b, c]) == "2.1.4"
    worker.hear("b")
    _, place = parse_place(listening.id_of([a, b, c]))
    assert place is not None
    assert list(place.since) == [b.key]
    assert place.at(b) == Position(1, 4, 0, 1)
    assert place.at(a) == Position(1, 4)
    assert listening.id_of([a, c]) == "2.1.4"


def test_without_counting() -> None:
    worker = Worker("a", "b")
    worker.listening.subscribed(key("a"), True)
    assert [topic.name for topic in worker.listening.open_uncounted()] == ["a"]
    assert worker.hear("a") == ["a"]
    assert worker.listening.id_of([worker.topics["a"]]) == NOWHERE
    worker.listening.subscribed(key("b"), True)
    assert set(worker.tick(3)) == {"a", "b"}
    assert worker.listening.id_of(list(worker.topics.values())) == "2.1.3"


def test_a_user_that_may_not_ask_who_the_server_is_counts_nothing() -> None:
    worker = Worker("a")
    worker.listening.connect("")
    worker.listening.subscribed(key("a"), True)
    assert worker.tick(1) == []
    assert worker.listening.era is None


def test_reading_ticks() -> None:
    assert parse_tick(b"3 17 4 id:id 3:9,16:2") == Tick(17, 4, "id:id", {3: 9, 16: 2})
    assert parse_tick(b"3 17 4 id:id ") == Tick(17, 4, "id:id", {})
    assert parse_tick(b"2 whatever") is None
    for garbage in (b"3", b"3 x 4 id ", b"3 1 1 id 3"):
        with pytest.raises(ValueError):
            parse_tick(garbage)


def test_another_database_of_the_same_server_costs_one_connection() -> None:
    worker = Worker()
    worker.tick(5)
    with pytest.raises(ServerChanged):
        worker.listening.is_new(7, 7)
    worker.listening.lose()
    worker.listening.connect("server")
    worker.tick(6)
    assert not worker.listening.is_new(7, 7), (
        "this database's generation is what it was: the other is none of its own"
    )
    worker.listening.lose()
    worker.listening.connect("server")
    worker.tick(9, 7, ended={1: 6})
    assert worker.listening.is_new(7, 10), "a generation that begins here is ours, whatever it was taken for"


def test_another_server_with_the_same_secret_costs_one_connection() -> None:
    """Whoever has recorded its ticks can publish them here: they must not cost a connection each."""
    worker = Worker()
    worker.tick(5)
    foreign = Tick(7, 7, "another", {})
    assert not worker.listening.is_foreign(foreign), "it may be the new master"
    with pytest.raises(ServerChanged):
        worker.listening.tick(foreign)
    worker.listening.lose()
    worker.listening.connect("server")
    assert worker.listening.is_foreign(foreign), "this connection was made because of it"
    worker.tick(6)
    assert worker.listening.is_foreign(foreign), "this server and its generation are what they were"
    assert not worker.listening.is_foreign(Tick(8, 1, "another", {}))
    assert not worker.listening.is_foreign(Tick(7, 7, "server", {})), "this server's own are always looked at"
    worker.listening.lose()
    worker.listening.connect("another")
    assert not worker.listening.is_foreign(foreign)
    worker.tick(8, 7, identity="another", ended={1: 6})
    worker.tick(9, 7, identity="another")
    assert worker.era() == (7, 9), "it has become the master"


def test_a_new_master_is_not_taken_for_a_foreign_server() -> None:
    worker = Worker()
    worker.tick(5)
    with pytest.raises(ServerChanged):
        worker.tick(7, 7, identity="another")
    worker.listening.lose()
    worker.listening.connect("another")
    worker.tick(8, 7, identity="another", ended={1: 6})
    worker.listening.lose()
    worker.listening.connect("server")
    assert not worker.listening.is_foreign(Tick(7, 9, "another", {}))
    with pytest.raises(ServerChanged):
        worker.tick(9, 7, identity="another")


def test_what_nobody_wants_any_more_is_forgotten_everywhere() -> None:
    worker = Worker("a", "b", "c")
    worker.open()
    worker.hear("a")
    dropped = worker.topics["a"]
    worker.listening.drop(key("a"))
    assert dropped.ring.since is None
    assert dropped not in worker.listening.loud
    worker.want("d")
    worker.listening.subscribed(key("d"), True)
    worker.listening.open_uncounted()
    worker.want("e")
    worker.listening.subscribed(key("e"), True)
    for name in "de":
        worker.listening.drop(key(name))
    assert not worker.listening.waiting
    assert worker.tick(2) == []


def test_every_tick_is_counted_and_ends_what_was_loud() -> None:
    worker = Worker("a")
    worker.open(1)
    worker.hear("a")
    assert list(worker.listening.loud) == [worker.topics["a"]]
    worker.tick(2)
    worker.tick(3)
    assert worker.listening.loud == {}
    assert worker.listening.ticks == 3
    assert worker.since() == Position(1, 1)
    worker.listening.lose()
    worker.listening.connect("server")
    assert worker.since() is None, "nothing was heard on this connection"
    assert worker.listening.epoch > 1
    worker.open(7)
    assert worker.since() == Position(1, 7)


def test_an_id_says_that_a_stream_has_begun_with_its_new_topics() -> None:
    worker = Worker("a", "b")
    topics = list(worker.topics.values())
    assert worker.listening.id_of(topics, Suffix("abcdef")) == NOWHERE
    assert worker.listening.id_of(topics, Suffix("abcdef", "proof")) == "2.0.0.sproof"
    worker.open(4)
    assert worker.listening.id_of(topics, Suffix("abcdef")) == "2.1.4.nabcdef"
    assert worker.listening.id_of(topics, Suffix("abcdef", "proof")) == "2.1.4.nabcdef.sproof"
    worker.hear("a")
    assert worker.listening.id_of(topics[:1]) == f"2.1.4.{topics[0].key}:1"
    worker.tick(5)
    assert worker.listening.id_of(topics[:1]) == "2.1.5", "what it had before the tick is not named"


def test_an_empty_hole_is_none() -> None:
    """A connection that is lost before anything came leaves nothing out."""
    worker = Worker("a")
    worker.open(5)
    worker.listening.lose()
    worker.listening.connect("server")
    worker.open(5)
    assert worker.topics["a"].ring.after(Position(1, 5)) == []
