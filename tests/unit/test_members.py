"""Who is ended when the memory of what waits for clients is used up."""

import logging

import pytest

from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.unsent import Piece
from gateway.memory.history import History
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

ENCODING = Encodings(0).get(chunked=False, named=False)
LIMIT = 1_000_000


class _Topics:
    def __init__(self) -> None:
        self._history = History(Settings(), lambda: 0.0)

    def want(self, name: str, is_pattern: bool) -> Topic:
        return Topic(name, is_pattern, self._history.ring())

    def release(self, topic: Topic) -> None:
        pass


class _Sink:
    """A connection on which nothing moves."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self.aborted = False

    def send_rest(self, rest: bytes | memoryview) -> None:
        pass

    def wake(self) -> None:
        pass

    def finish(self, last: bytes) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True
        self._subscriber.discard()


class Crowd:
    """Streams of which nobody reads."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._topics = _Topics()
        settings = Settings(unsent_total_bytes=LIMIT, replay_total_bytes=LIMIT)
        self.members = Members(settings, 1000, self._topics, self.metrics, lambda: 0.0)

    def enter(self, behind: int, writing: int = 0) -> Subscriber:
        """A stream for which so many bytes wait, and of which the transport holds so many."""
        subscriber = self.members.register([self._topics.want("news", False)], ENCODING)
        subscriber.sink = _Sink(subscriber)
        if behind:
            subscriber.backlog = Backlog(QueueLimits(1000, LIMIT), self.members.unsent, 0.0)
            subscriber.backlog.add(Piece(self.members.unsent, b"x" * behind))
            self.members.behind.add(subscriber)
        if writing:
            self.members.hold(subscriber, b"x" * writing)
        return subscriber


def test_those_furthest_behind_are_ended_until_there_is_some_room() -> None:
    crowd = Crowd()
    streams = [crowd.enter(behind) for behind in (200_000, 300_000, 100_000, 0, 250_000)]
    assert not crowd.members.unsent.full
    streams.append(crowd.enter(200_000, writing=200_000))
    assert [each.closed for each in streams] == [None, None, None, None, None, "unsent_total"]
    streams.append(crowd.enter(160_000))
    crowd.members.make_room()
    assert [each.closed is not None for each in streams] == [False, True, False, False, False, True, False]
    assert crowd.metrics.streams_closed == {"unsent_total": 2}
    assert all(each.sink.aborted == (each.closed is not None) for each in streams if isinstance(each.sink, _Sink))


def test_what_a_transport_holds_counts_and_is_found() -> None:
    crowd = Crowd()
    streams = [crowd.enter(0, writing=100_000) for _ in range(12)]
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
    ended = [crowd.enter(100_000) for _ in range(3)]
    for each in ended:
        crowd.members.end(each, "max_age")
    assert crowd.members.unsent.bytes > 300_000, "they may still be read"
    others = [crowd.enter(190_000) for _ in range(3)]
    crowd.members.hold(others[0], b"x" * 200_000)
    assert [isinstance(each.sink, _Sink) and each.sink.aborted for each in ended] == [True, True, False]
    assert all(each.closed is None for each in others)


def test_a_dropped_stream_says_how_far_it_was_behind(caplog: pytest.LogCaptureFixture) -> None:
    crowd = Crowd()
    with caplog.at_level(logging.INFO):
        crowd.members.drop(crowd.enter(1234), "unsent_total")
    assert "stream dropped: unsent_total, 0 events and 1234 bytes behind" in caplog.text
    assert crowd.members.unsent.bytes == 0
