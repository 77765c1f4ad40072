"""Who listens to what: topics are given up with the last listener, and streams end as they should, also where the
memory of what waits for clients is used up.
"""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from gateway.broker.topics import WantedTopics
from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.unsent import Piece
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.place import Suffix
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

PLAIN, CHUNKED = (Encodings(0).get(chunked=chunked, named=False) for chunked in (False, True))
LIMIT = 1_000_000
"""Bytes that may wait for a `Crowd`."""


class Sink:
    """A connection on which nothing moves; it notes how its stream ends."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self.notes: list[object] = []

    def send_rest(self, rest: bytes | memoryview) -> None:
        self.notes.append(bytes(rest))

    def wake(self) -> None:
        self.notes.append("wake")

    def finish(self, last: bytes, torn: bool) -> None:
        self.notes.append(("finish", last))

    def abort(self) -> None:
        self.notes.append("abort")
        self._subscriber.discard()


class Room:
    """Members, with the topics that they want and a clock of their own."""

    def __init__(self, max_streams: int = 3, **settings: Any) -> None:
        self.now = 1000.0
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        history = History(Settings(), clock)
        self.topics = WantedTopics(Listening(history), history, b"", 100, 60.0, clock, 100)
        self.metrics = Metrics()
        self.members = Members(Settings(**settings), max_streams, self.topics, self.metrics, clock)

    def topic(self, name: str) -> Topic:
        return self.topics.want(name, "*" in name)

    def enter(self, *names: str) -> Subscriber:
        subscriber = self.members.register([self.topic(name) for name in names], CHUNKED)
        subscriber.sink = Sink(subscriber)
        return subscriber

    def left_at(self, subscriber: Subscriber) -> str | None:
        return subscriber.left_at

    def notes(self, subscriber: Subscriber) -> list[object]:
        assert isinstance(subscriber.sink, Sink)
        return subscriber.sink.notes


class Crowd(Room):
    """Streams of which nobody reads."""

    def __init__(self) -> None:
        super().__init__(1000, unsent_total_bytes=LIMIT, replay_total_bytes=LIMIT)

    def lag(self, behind: int, writing: int = 0) -> Subscriber:
        """A stream for which so many bytes wait, and of which the transport holds so many."""
        subscriber = self.enter("news")
        if behind:
            subscriber.backlog = Backlog(QueueLimits(1000, LIMIT), self.members.unsent, 0.0)
            subscriber.backlog.add(Piece(self.members.unsent, b"x" * behind))
            self.members.behind.add(subscriber)
        if writing:
            self.members.hold(subscriber, b"x" * writing)
        return subscriber


def test_a_topic_is_given_up_with_its_last_listener() -> None:
    room = Room()
    one, both = room.enter("a"), room.enter("a", "b")
    a, b = room.topic("a"), room.topic("b")
    assert (room.members.audience(a), room.members.audience(room.topic("c"))) != (None, None)
    room.members.leave(both, "client")
    assert room.topics.is_idle(b)
    assert room.members.audience(b) is None
    assert not room.topics.is_idle(a)
    room.members.leave(both, "again")
    assert not room.topics.is_idle(a), "the second time does nothing"
    room.members.leave(one, "client")
    assert room.topics.is_idle(a)
    assert room.metrics.streams_opened == 2
    assert room.metrics.streams_closed == {"client": 2}
    assert len(room.members) == 0


def test_listeners_of_one_topic_share_what_says_so() -> None:
    room = Room()
    one, other, both = room.enter("a"), room.enter("a"), room.enter("a", "b")
    assert one.topics is other.topics == (room.topic("a"),)
    assert both.topics == (room.topic("a"), room.topic("b"))
    assert room.members.full
    assert set(room.members.all()) == {one, other, both}
    assert set(room.members.of(room.topic("b"))) == {both}
    assert set(room.members.of(room.topic("a"))) == {one, other, both}


def test_who_has_joined_is_in_the_audience() -> None:
    room = Room()
    one, both = room.enter("a"), room.enter("a", "b")
    a, b = (room.members.audience(room.topic(name)) for name in "ab")
    assert a is not None
    assert b is not None
    assert (a.single, a.joint, a.size, b.size) == ({}, {}, 2, 1)
    version = a.version
    room.members.join(one)
    room.members.join(both)
    assert (a.single, a.joint, b.single, b.joint) == ({CHUNKED: {one}}, {CHUNKED: {both}}, {}, {CHUNKED: {both}})
    assert a.version == version + 2
    room.members.part(both, "2.1.1")
    assert room.left_at(both) == "2.1.1"
    assert (a.joint, b.joint) == ({}, {})
    assert a.version == version + 3
    room.members.join(both)
    assert room.left_at(both) is None
    room.members.leave(both, "client")
    assert a.joint == {}
    room.members.join(both)
    assert a.joint == {}, "who has left does not join"


def test_last_delivery_is_the_newest_of_all_topics() -> None:
    room = Room()
    both = room.enter("a", "b")
    for name, when in (("a", 5.0), ("b", 7.0)):
        audience = room.members.audience(room.topic(name))
        assert audience is not None
        audience.last_delivery = when
    assert room.members.last_delivery(both) == 7.0


def test_streams_whose_ids_are_their_own() -> None:
    room = Room()
    included = room.enter("a", "b")
    assert room.members.special == set()
    room.members.include(included, "abcdef")
    assert included.suffix == Suffix(new="abcdef")
    assert (room.members.special, room.members.ambiguous) == ({included}, set())
    room.members.leave(included, "client")
    assert room.members.special == set()
    one, twin = room.topic("c"), room.topic("d")
    twin.key = one.key
    alike = room.members.register([one, twin], PLAIN)
    assert (room.members.special, room.members.ambiguous) == ({alike}, {alike}), "two topics of one key"
    assert room.members.register([one], PLAIN) not in room.members.special
    proven = room.members.register([one], PLAIN, Suffix(proof="p" * 22))
    assert (room.members.special, room.members.ambiguous) == ({alike, proven}, {alike})
    for each in (alike, proven):
        room.members.leave(each, "client")
    assert (room.members.special, room.members.ambiguous) == (set(), set())


def test_a_stream_ends_with_its_last_words_and_is_closed_if_nobody_reads_them() -> None:
    room = Room()
    stream, unread = room.enter("a"), room.enter("a")
    room.members.end(stream, "max_age", b"last")
    assert room.notes(stream) == [("finish", b"last" + CHUNKED.end)]
    assert stream.closed == "max_age"
    assert stream.send(b"more") == 4, "there is nobody left to send to"
    room.now += 3
    room.members.end(unread, "refused")
    assert room.notes(unread) == [("finish", CHUNKED.end)]
    seconds = 0
    while "abort" not in room.notes(stream):
        room.now += 1
        seconds += 1
        room.members.sweep()
    assert "abort" not in room.notes(unread), "each has as long"
    assert 3 < seconds < 60
    room.now += 3
    room.members.sweep()
    assert "abort" in room.notes(unread)
    room.members.sweep()
    assert room.notes(stream).count("abort") == 1


def test_a_stream_that_is_dropped_ends_at_once() -> None:
    room = Room()
    stream, without = room.enter("a"), room.enter("b")
    called: list[Subscriber] = []
    room.members.on_leave.append(called.append)
    room.members.drop(stream, "overflow")
    assert room.notes(stream) == ["abort"]
    without.sink = None
    room.members.drop(without, "overflow")
    assert called == [stream, without]
    assert room.metrics.streams_closed == {"overflow": 2}


@pytest.mark.parametrize("stall_timeout", [0, 10])
def test_who_takes_nothing_for_too_long_is_dropped(stall_timeout: float) -> None:
    room = Room(stall_timeout=stall_timeout)
    slow, stalled, caught_up = room.enter("a"), room.enter("a"), room.enter("a")
    for each in (slow, stalled):
        each.backlog = Backlog(QueueLimits(10, 1000), room.members.unsent, room.now)
    room.members.behind = {slow, stalled, caught_up}
    room.now += 10
    assert slow.backlog is not None
    slow.backlog.moved = True
    assert len(room.members.backlogs) == 2
    room.members.sweep()
    assert (slow.closed, stalled.closed) == (None, None), "just not too long"
    assert room.members.behind == {slow, stalled}
    assert not slow.backlog.moved
    room.now += 1
    room.members.sweep()
    assert (slow.closed, stalled.closed) == (None, "stalled" if stall_timeout else None)
    room.now += 9
    room.members.sweep()
    assert slow.closed is None, "it took something when it was looked at"


def test_streams_end_at_about_their_greatest_age() -> None:
    room = Room(max_age=100)
    old = room.enter("a")
    left = room.enter("a")
    room.members.leave(left, "client")
    room.now += 60
    young = room.enter("a")
    due: list[tuple[float, Subscriber]] = []
    for _ in range(120):
        room.now += 1
        due += [(room.now, each) for each in room.members.sweep()]
    assert [each for _, each in due] == [old, young]
    (first, _), (second, _) = due
    assert 1089 <= first <= 1112
    assert 1149 <= second <= 1172
    forever = Room(max_age=0)
    forever.enter("a")
    forever.now += 1e6
    assert forever.members.sweep() == []


def test_those_furthest_behind_are_ended_until_there_is_some_room() -> None:
    crowd = Crowd()
    streams = [crowd.lag(behind) for behind in (200_000, 300_000, 100_000, 0, 250_000)]
    assert not crowd.members.unsent.full
    streams.append(crowd.lag(200_000, writing=200_000))
    assert [each.closed for each in streams] == [None, None, None, None, None, "unsent_total"]
    streams.append(crowd.lag(160_000))
    crowd.members.make_room()
    assert [each.closed is not None for each in streams] == [False, True, False, False, False, True, False]
    assert crowd.metrics.streams_closed == {"unsent_total": 2}
    assert all(("abort" in crowd.notes(each)) == (each.closed is not None) for each in streams)


def test_what_a_transport_holds_counts_and_is_found() -> None:
    crowd = Crowd()
    streams = [crowd.lag(0, writing=100_000) for _ in range(12)]
    assert crowd.members.unsent.bytes < LIMIT
    assert sum(each.closed is not None for each in streams) == 4
    # Their clients read again.
    for each in streams:
        each.writing = None
    assert crowd.members.unsent.bytes == 0
    crowd.members.sweep()
    assert not crowd.members.behind


def test_ended_streams_that_nobody_reads_go_first() -> None:
    crowd = Crowd()
    ended = [crowd.lag(100_000) for _ in range(3)]
    for each in ended:
        crowd.members.end(each, "max_age")
    assert crowd.members.unsent.bytes > 300_000, "they may still be read"
    others = [crowd.lag(190_000) for _ in range(3)]
    crowd.members.hold(others[0], b"x" * 200_000)
    assert ["abort" in crowd.notes(each) for each in ended] == [True, True, False]
    assert all(each.closed is None for each in others)


def test_a_dropped_stream_says_how_far_it_was_behind(caplog: pytest.LogCaptureFixture) -> None:
    crowd = Crowd()
    with caplog.at_level(logging.INFO):
        crowd.members.drop(crowd.lag(1234), "unsent_total")
    assert "stream dropped: unsent_total, 0 events and 1234 bytes behind" in caplog.text
    assert crowd.members.unsent.bytes == 0
