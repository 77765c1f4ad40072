"""A queue that is full gives up only what may be given up."""

import gc

from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.prepared import Prepared, ReplayRoom
from gateway.fanout.subscriber import Subscriber
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

ENCODING = Encodings(0).get(chunked=False, named=False)


def test_a_full_queue_gives_up_only_what_may_be_given_up() -> None:
    backlog = Backlog(QueueLimits(3, 1000), 0.0)
    for name in "abc":
        assert backlog.add(name.encode(), 1, "orders", "disconnect")
    assert not backlog.add(b"p", 1, "prices", "drop-oldest"), "orders must not be dropped for prices"
    assert backlog.take(ENCODING) == b"abc"


def test_of_each_ticker_only_the_newest_waits_in_its_place_and_the_rest_is_kept() -> None:
    backlog = Backlog(QueueLimits(4, 1000), 0.0)
    for piece, channel, policy in (
        (b"1", "euro", "latest"), (b"o", "orders", "disconnect"), (b"2", "yen", "latest"), (b"3", "euro", "latest"),
        (b"4", "yen", "latest"), (b"5", "yen", "latest"),
    ):  # fmt: skip
        assert backlog.add(piece, 1, channel, policy)  # type: ignore[arg-type]
    assert (backlog.events, backlog.bytes, backlog.dropped) == (3, 3, 0)
    assert backlog.add(b"6", 1, "won", "latest")
    assert backlog.add(b"7", 1, "zloty", "latest"), "a full queue gives up its oldest ticker"
    assert backlog.add(b"8", 1, "euro", "latest"), "and that one comes again"
    taken = backlog.take(ENCODING)
    assert taken.endswith(b"o678")
    assert b'"channel":"euro"' in taken
    assert b'"channel":"yen"' in taken


def test_a_replay_waits_before_everything_is_shared_and_not_within_the_limits() -> None:
    room = ReplayRoom(10_000)
    prepared = Prepared(room, "id")
    for piece in (b"1" * 2000, b"2" * 2000):
        prepared.add(piece)
    backlogs = [Backlog(QueueLimits(3, 1000), 0.0) for _ in range(10)]
    for backlog in backlogs:
        backlog.begin_with(prepared.pieces())
        assert backlog.add(b"live", 1, "news", "disconnect")
        assert (backlog.events, backlog.bytes) == (1, 4)
    del prepared
    assert room.bytes == 4000, "once for all"
    first = [backlog.take(ENCODING) for backlog in backlogs]
    assert all(piece is first[0] for piece in first), "no copies"
    for backlog in backlogs:
        assert [backlog.take(ENCODING)[:4] for _ in range(2)] == [b"2222", b"live"]
        assert not backlog
    assert room.bytes == 0


def test_a_replay_that_is_given_up_frees_its_room() -> None:
    gc.disable()
    try:
        room = ReplayRoom(10_000)
        prepared = Prepared(room, "id")
        prepared.add(b"x" * 10_000)
        backlog = Backlog(QueueLimits(3, 1000), 0.0)
        backlog.begin_with(prepared.pieces())
        assert room.full
        del prepared, backlog
        assert room.bytes == 0
    finally:
        gc.enable()


def test_what_waits_is_taken_in_pieces_with_gaps_where_something_is_missing() -> None:
    backlog = Backlog(QueueLimits(3, 1_000_000), 0.0)
    for place in b"abcd":
        assert backlog.add(bytes([place]) * 200_000, 1, "news", "drop-oldest")
    taken = backlog.take(ENCODING)
    assert b'"reason":"overflow"' in taken
    assert taken.endswith(b"b" * 200_000 + b"c" * 200_000)
    assert (backlog.events, backlog.bytes) == (1, 200_000)
    for place in b"ef":
        assert backlog.add(bytes([place]) * 200_000, 1, "news", "drop-oldest")
    assert backlog.dropped == 1
    assert backlog.take(ENCODING) == b"d" * 200_000 + b"e" * 200_000, "there is no gap in front of it"
    assert backlog.take(ENCODING) == b"f" * 200_000
    assert not backlog


class _HalfASocket:
    """Takes half of what it is sent, as a kernel does whose buffer is nearly full."""

    def __init__(self) -> None:
        self.rest: bytes | memoryview = b""

    @staticmethod
    def send(piece: bytes) -> int:
        return len(piece) // 2

    def send_rest(self, rest: bytes | memoryview) -> None:
        self.rest = rest

    def wake(self) -> None:
        pass

    def finish(self, last: bytes) -> None:
        pass

    def abort(self) -> None:
        pass


def test_the_rest_of_a_large_piece_is_no_copy() -> None:
    settings = Settings()
    history = History(settings, lambda: 0.0)

    class Topics:
        def want(self, name: str, is_pattern: bool) -> Topic:
            return Topic(name, is_pattern, history.ring())

        def release(self, topic: Topic) -> None:
            pass

    topics = Topics()
    members = Members(settings, 10, topics, Metrics(), lambda: 0.0)
    delivery = Delivery(settings, members, Listening(history), Metrics(), lambda: 0.0)
    subscriber: Subscriber = members.register([topics.want("a", False)], ENCODING)
    socket = _HalfASocket()
    subscriber.sink, subscriber.send = socket, socket.send
    piece = b"x" * 100_000
    delivery.send(subscriber, piece, 1)
    assert isinstance(socket.rest, memoryview)
    assert socket.rest.obj is piece
    assert len(socket.rest) == 50_000
    delivery.send(subscriber, b"small", 1)
    assert bytes(socket.rest) == b"all"
