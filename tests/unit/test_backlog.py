"""A queue that is full gives up only what may be given up."""

import gc

import pytest

from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.policies import Policy
from gateway.fanout.prepared import Prepared
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.unsent import Piece, Unsent
from gateway.memory.catch_up import Wish
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings
from tests.unit.entrance import Entrance, Stream, idle, run

ENCODING = Encodings(0).get(chunked=False, named=False)


class Queue:
    """A queue, and the memory of all."""

    def __init__(self, events: int, bytes_: int, unsent: Unsent | None = None) -> None:
        self.unsent = unsent if unsent is not None else Unsent(1_000_000_000)
        self.backlog = Backlog(QueueLimits(events, bytes_), self.unsent, 0.0)

    def add(self, data: bytes, channel: str, policy: Policy, rest: Piece | None = None) -> bool:
        return self.backlog.add(Piece(self.unsent, data, 1, channel, policy, rest))

    def take(self) -> bytes:
        return self.backlog.take(ENCODING).data


def test_a_full_queue_gives_up_only_what_may_be_given_up() -> None:
    queue = Queue(3, 1000)
    for name in "abc":
        assert queue.add(name.encode(), "orders", "disconnect")
    assert not queue.add(b"p", "prices", "drop-oldest"), "orders must not be dropped for prices"
    assert queue.take() == b"abc"


def test_of_each_ticker_only_the_newest_waits_in_its_place_and_the_rest_is_kept() -> None:
    queue = Queue(4, 1000)
    for piece, channel, policy in (
        (b"1", "euro", "latest"), (b"o", "orders", "disconnect"), (b"2", "yen", "latest"), (b"3", "euro", "latest"),
        (b"4", "yen", "latest"), (b"5", "yen", "latest"),
    ):  # fmt: skip
        assert queue.add(piece, channel, policy)  # type: ignore[arg-type]
    backlog = queue.backlog
    assert (backlog.events, backlog.bytes, backlog.dropped) == (3, 3, 0)
    assert queue.add(b"6", "won", "latest")
    assert queue.add(b"7", "zloty", "latest"), "a full queue gives up its oldest ticker"
    assert queue.add(b"8", "euro", "latest"), "and that one comes again"
    taken = queue.take()
    assert taken.endswith(b"o678")
    assert b'"channel":"euro"' in taken
    assert b'"channel":"yen"' in taken


def test_an_event_in_two_pieces_is_dropped_or_replaced_as_a_whole() -> None:
    """Its id alone was replaced: the client had the event without one, and got it again when it came back."""
    queue = Queue(2, 1000)
    for policy, left in (("latest", b"head 3body 3"), ("drop-oldest", b"head 2body 2head 3body 3")):
        for number in range(4):
            body = Piece(queue.unsent, b"body %d" % number)
            assert queue.add(b"head %d" % number, "news", policy, body)  # type: ignore[arg-type]
        taken = b""
        while queue.backlog:
            taken += queue.take()
        assert taken.endswith(b"\n\n" + left if policy == "drop-oldest" else left)
        assert taken.count(b"head") == taken.count(b"body") == left.count(b"head")
    del body
    assert (queue.backlog.events, queue.backlog.bytes, queue.unsent.bytes) == (0, 0, 0)


def test_two_pieces_stay_together_behind_others() -> None:
    queue = Queue(10, 1000)
    queue.add(b"first", "news", "disconnect")
    queue.add(b"head", "news", "disconnect", Piece(queue.unsent, b"body"))
    queue.add(b"last", "news", "disconnect")
    taken = [queue.take() for _ in range(4)]
    assert taken == [b"first", b"head", b"body", b"last"]
    assert not queue.backlog


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [([1] * 3, True), ([1] * 4, False), ([500, 500], True), ([500, 501], False), ([9000], True), ([1000, 1], False)],
)
def test_a_queue_is_exactly_as_long_as_it_may_be(sizes: list[int], fits: bool) -> None:
    """But an empty one takes anything."""
    queue = Queue(3, 1000)
    added = [queue.add(b"x" * size, "orders", "disconnect") for size in sizes]
    assert added == [True] * (len(sizes) - 1) + [fits]


def test_what_was_taken_is_replaced_no_more() -> None:
    queue = Queue(3, 1000)
    for texts in ((b"1", b"2"), (b"3", b"4")):
        for text in texts:
            assert queue.add(text, "euro", "latest")
        assert queue.take() == texts[-1]
    assert (queue.backlog.events, queue.backlog.bytes) == (0, 0)


def test_a_replay_waits_before_everything_is_shared_and_not_within_the_limits() -> None:
    unsent = Unsent(1_000_000)
    room = Unsent(10_000, unsent)
    prepared = Prepared(room, "id")
    for piece in (b"1" * 2000, b"2" * 2000):
        prepared.add(piece)
    once = room.bytes
    assert 4000 < once < 5000
    queues = [Queue(3, 1000, unsent) for _ in range(10)]
    for queue in queues:
        queue.backlog.begin_with(prepared.pieces())
        assert queue.add(b"live", "news", "disconnect")
        assert (queue.backlog.events, queue.backlog.bytes) == (1, 4)
    del prepared
    assert room.bytes == once, "once for all"
    first = [queue.take() for queue in queues]
    assert all(piece is first[0] for piece in first), "no copies"
    for queue in queues:
        assert [queue.take()[:4] for _ in range(2)] == [b"2222", b"live"]
        assert not queue.backlog
    del queue, queues
    assert room.bytes == unsent.bytes == 0


def test_what_waits_counts_once_until_nobody_waits_for_it() -> None:
    gc.disable()
    try:
        unsent = Unsent(1_000_000)
        queues = [Queue(10, 1_000_000, unsent) for _ in range(10)]
        shared = Piece(unsent, b"x" * 100_000)
        for queue in queues:
            queue.backlog.add(shared)
            queue.backlog.add(Piece(unsent, b"own"))
        del shared
        assert 100_000 < unsent.bytes < 110_000
        del queues[:9], queue
        assert 100_000 < unsent.bytes < 101_000
        taken = queues[0].backlog.take(ENCODING)
        assert unsent.bytes > 100_000
        del taken
        assert 0 < unsent.bytes < 1000
        del queues
        assert unsent.bytes == 0
    finally:
        gc.enable()


def test_a_replay_that_is_given_up_frees_its_room() -> None:
    gc.disable()
    try:
        room = Unsent(10_000)
        prepared = Prepared(room, "id")
        prepared.add(b"x" * 10_000)
        queue = Queue(3, 1000)
        queue.backlog.begin_with(prepared.pieces())
        assert room.full
        del prepared, queue
        assert room.bytes == 0
    finally:
        gc.enable()


def test_what_waits_is_taken_in_pieces_with_gaps_where_something_is_missing() -> None:
    queue = Queue(3, 1_000_000)
    for place in b"abcd":
        assert queue.add(bytes([place]) * 50_000, "news", "drop-oldest")
    taken = queue.take()
    assert b'"reason":"overflow"' in taken
    assert taken.endswith(b"b" * 50_000 + b"c" * 50_000)
    assert (queue.backlog.events, queue.backlog.bytes) == (1, 50_000)
    for place in b"ef":
        assert queue.add(bytes([place]) * 50_000, "news", "drop-oldest")
    assert queue.backlog.dropped == 1
    assert queue.take() == b"d" * 50_000 + b"e" * 50_000, "there is no gap in front of it"
    assert queue.take() == b"f" * 50_000
    assert not queue.backlog


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

    def finish(self, last: bytes, torn: bool) -> None:
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
    delivery.send([subscriber], piece, 1)
    assert isinstance(socket.rest, memoryview)
    assert socket.rest.obj is piece
    assert len(socket.rest) == 50_000
    delivery.send([subscriber], b"small", 1)
    assert bytes(socket.rest) == b"all"


# -- the policy `latest`, where several events come together


_TOPICS = {"one": ("a",), "several": ("a", "b", "c"), "a pattern": ("a*",)}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("loud", [False, True], ids=["shared ids", "own ids"])
@pytest.mark.parametrize("topics", _TOPICS.values(), ids=_TOPICS)
def test_of_what_comes_together_the_newest_waits(topics: tuple[str, ...], loud: bool, large: bool) -> None:
    async def play() -> None:
        entrance = Entrance(overflow="latest", queue_events=2)
        streams = [entrance.enter(*topics) for _ in range(3)]
        holder = entrance.enter("a", "loud")
        await idle()
        entrance.open(*topics, *["a"] * ("a" not in topics), "loud")
        await idle()
        for stream in streams[1:]:
            stream.socket.full = True
        rest = "x" * 20_000 if large else ""
        if loud:  # another of the streams' topics had a message since the tick
            entrance.publish(("b" if "b" in topics else "a", "before"))
            for stream in streams:
                stream.socket.drain()
            for stream in streams[1:]:
                stream.socket.full = True
        before = streams[0].texts
        for batch in (["1", "2", "3"], ["4"], ["5", "6"]):
            entrance.publish(*[("a", text + rest) for text in batch])
            for stream in streams[1:]:
                assert stream.subscriber.backlog is not None
                assert stream.subscriber.backlog.events == 1
        assert [text[:1] for text in streams[0].texts[len(before) :]] == list("123456")
        for stream in streams[1:]:
            stream.socket.drain()
            assert [text[:1] for text in stream.texts[len(before) :]] == ["6"]
            assert stream.last_event_id == streams[0].last_event_id
        assert entrance.metrics.dropped_events == 0
        holder.leave()

    run(play)


def test_the_newest_waits_on_a_stream_whose_ids_tell_of_new_topics() -> None:
    async def play() -> None:
        entrance = Entrance(overflow="latest")
        holder = entrance.enter("a", "b")
        await idle()
        entrance.open("a", "b")
        await idle()
        stream = Stream(entrance, ["a", "b"], Wish(holder.last_event_id, 0, frozenset(["b"])))
        entrance.tick()
        await idle()
        for verifying in entrance.asked.verifying:
            entrance.tick()
            verifying.set_result(None)
        await idle()
        assert stream.subscriber.suffix.new
        stream.socket.full = True
        entrance.publish(("a", "1"), ("a", "2"))
        entrance.publish(("b", "3"), ("b", "4"), ("a", "5"))
        stream.socket.drain()
        assert stream.texts == ["4", "5"]
        again = Stream(entrance, ["a", "b"], Wish(stream.last_event_id, 0, frozenset(["b"])))
        await idle()
        assert again.texts == []

    run(play)


@pytest.mark.parametrize("policy", ["latest", "drop-oldest", "disconnect"])
def test_a_large_event_waits_or_is_dropped_together_with_its_id(policy: str) -> None:
    """Its id is the stream's own and its text is shared, so they are written one after the other."""

    async def play() -> None:
        entrance = Entrance(overflow=policy, queue_bytes=100_000)
        stream, quick = entrance.enter("a", "b"), entrance.enter("a", "b")
        await idle()
        entrance.open("a", "b")
        await idle()
        entrance.publish(("b", "loud"))
        stream.socket.full = True
        for number in range(3 if policy == "disconnect" else 9):
            entrance.publish(("a", f"{number}" + "x" * 30_000))
        stream.socket.drain()
        told = {frame.data[:1]: frame.id for frame in quick.frames if frame.data.endswith("x")}
        got = [(frame.data[:1], frame.id) for frame in stream.frames if frame.data.endswith("x")]
        assert got == list(told.items())[-1 if policy == "latest" else -3 :]
        assert [frame.id for frame in stream.frames if frame.type == "gateway.gap"] == [None] * (
            policy == "drop-oldest"
        )

    run(play)


def test_tickers_on_one_stream_each_keep_their_newest_in_order() -> None:
    async def play() -> None:
        entrance = Entrance(overflow=("*.b=disconnect", "x.*=latest", "drop-oldest"), queue_events=5)
        names = ["x.a", "x.b", "x.c", "y"]
        stream = entrance.enter(*names)
        await idle()
        entrance.open(*names)
        await idle()
        stream.socket.full = True
        entrance.publish(
            ("x.a", "1"), ("x.b", "2"), ("x.a", "3"), ("x.b", "4"), ("x.c", "5"), ("x.a", "6"), ("y", "7")
        )
        entrance.publish(("x.c", "8"), ("x.c", "9"))
        stream.socket.drain()
        assert stream.texts == ["2", "4", "6", "7", "9"]
        again = entrance.enter(*names, last_event_id=stream.last_event_id)
        await idle()
        assert again.texts == []

    run(play)


@pytest.mark.parametrize("policy", ["latest", "drop-oldest"])
@pytest.mark.parametrize("large", [False, True])
def test_who_has_had_the_beginning_of_a_batch_gets_all_of_it(policy: str, large: bool) -> None:
    async def play() -> None:
        entrance = Entrance(overflow=policy, queue_events=1)
        streams = [entrance.enter("a"), entrance.enter("a", "b")]
        await idle()
        entrance.open("a", "b")
        await idle()
        entrance.publish(("b", "loud"))
        for stream in streams:
            stream.socket.takes = 10
        batch = ["1", "2", "3"] if not large else ["1" * 20_000]
        entrance.publish(*[("a", text) for text in batch])
        entrance.publish(("a", "4"))
        for stream in streams:
            stream.socket.drain()
            own = [text for text in stream.texts if text != "loud"]
            assert own == [*batch, "4"]

    run(play)
