"""Who gets which bytes: each event once, behind an id that is true, at once or in the stream's queue."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.broker.topics import WantedTopics
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.subscriber import QUEUE
from gateway.fanout.unsent import Piece
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.place import NO_SUFFIX, NOWHERE, Suffix, parse_place
from gateway.memory.tick import Tick
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings
from tests.unit.model.client import Frame, frames

ENCODINGS = Encodings(0)
PLAIN = ENCODINGS.get(chunked=False, named=False)
NAMED = ENCODINGS.get(chunked=False, named=True)


class Stream:
    """One whose client takes all, a part, or nothing."""

    def __init__(self, room: "Room", names: Sequence[str], encoding: Any = PLAIN, proof: str = "") -> None:
        self.sent: list[bytes] = []
        self.rest: list[bytes | memoryview] = []
        self.takes: int | None = None  # of each piece; None: all
        self.woken = 0
        self.aborted = False
        topics = [room.topic(name) for name in names]
        self.subscriber = room.members.register(topics, encoding, Suffix(proof=proof) if proof else NO_SUFFIX)
        self.subscriber.send = self._send
        self.subscriber.sink = self
        room.delivery.commit()
        room.members.join(self.subscriber)

    def _send(self, piece: bytes) -> int:
        if self.takes == QUEUE:
            return QUEUE
        taken = len(piece) if self.takes is None else min(self.takes, len(piece))
        self.sent.append(piece[:taken])
        return taken

    def send_rest(self, rest: bytes | memoryview) -> None:
        self.rest.append(rest)
        self.sent.append(bytes(rest))

    def wake(self) -> None:
        self.woken += 1

    def finish(self, last: bytes, torn: bool) -> None:
        self.sent.append(last)

    def abort(self) -> None:
        self.aborted = True

    def frames(self) -> list[Frame]:
        """What its client has read once it has taken all that waits."""
        while piece := self.subscriber.take():
            self.sent.append(piece)
        return frames(b"".join(self.sent))

    def data(self) -> list[str]:
        return [frame.data for frame in self.frames()]


class Room:
    """A worker's streams, with the link that hears for them."""

    def __init__(self, **settings: Any) -> None:
        self.now = 5.0
        given = Settings(**{"allowed_patterns": "*", **settings})
        history = History(given, lambda: self.now)
        self.listening = Listening(history)
        self.listening.connect("redis")
        self.wanted = WantedTopics(self.listening, history, b"", 100, 60, lambda: self.now, 100)
        self.metrics = Metrics()
        self.members = Members(given, 100, self.wanted, self.metrics, lambda: self.now)
        self.need_tick: Callable[[], None] = lambda: None
        self.delivery = Delivery(
            given, self.members, self.listening, self.metrics, lambda: self.now, lambda: self.need_tick()
        )
        self.ticks = 0
        self.tick()

    def tick(self) -> None:
        self.delivery.commit()
        self.ticks += 1
        self.listening.tick(Tick(1, self.ticks, "redis", {}))
        self.delivery.ticked()

    def topic(self, name: str) -> Topic:
        topic = self.wanted.want(name, "*" in name)
        if not topic.heard:
            self.listening.subscribed(self.wanted.key(topic), True)
            self.tick()
        return topic

    def heard(self, channel: str, text: str, through: Sequence[str] = (), own_id: str | None = None) -> Heard:
        topics = tuple([self.topic(name) for name in through or [channel]])
        positions = tuple([self.listening.count(topic, 0) for topic in topics])
        return Heard(channel, Event(text.encode(), own_id=own_id), topics, positions)

    def publish(self, channel: str, text: str, through: Sequence[str] = (), own_id: str | None = None) -> None:
        self.delivery.deliver([self.heard(channel, text, through, own_id)])

    def place(self, frame: Frame, *names: str) -> list[tuple[int, int]]:
        """Tick and count on each of the topics, as the frame's id says."""
        _, place = parse_place(frame.id or "")
        assert place is not None
        return [(at.tick, at.count) for at in (place.at(self.topic(name)) for name in names)]


def test_an_event_of_several_topics_of_a_stream_comes_once() -> None:
    room = Room()
    channel, pattern, both = Stream(room, ["a"]), Stream(room, ["*"]), Stream(room, ["a", "*"])
    other, three = Stream(room, ["a", "b"]), Stream(room, ["a", "*", "b"])
    room.publish("a", "1", through=["a", "*"])
    room.publish("c", "2", through=["*"])
    room.publish("b", "3", through=["b", "*"])
    assert [each.data() for each in (channel, pattern, both)] == [["1"], ["1", "2", "3"], ["1", "2", "3"]]
    assert (other.data(), three.data()) == (["1", "3"], ["1", "2", "3"])
    assert room.metrics.deliveries == 1 + 3 + 3 + 2 + 3


def test_ids_name_every_topic_that_had_a_message_since_the_tick() -> None:
    room = Room()
    stream, same = Stream(room, ["a", "b", "c"]), Stream(room, ["a", "b", "c"])
    quiet = Stream(room, ["b", "c"])
    tick = room.ticks
    for channel in "abba":
        room.publish(channel, channel)
    names = ("a", "b", "c")
    assert [room.place(frame, *names) for frame in stream.frames()] == [
        [(tick, 1), (tick, 0), (tick, 0)],
        [(tick, 1), (tick, 1), (tick, 0)],
        [(tick, 1), (tick, 2), (tick, 0)],
        [(tick, 2), (tick, 2), (tick, 0)],
    ]
    assert same.sent == stream.sent
    assert [room.place(frame, "b", "c") for frame in quiet.frames()] == [
        [(tick, 1), (tick, 0)],
        [(tick, 2), (tick, 0)],
    ]
    room.tick()
    room.publish("c", "c")
    (*_, last) = stream.frames()
    assert room.place(last, *names) == [(tick + 1, 0), (tick + 1, 0), (tick + 1, 1)]


@pytest.mark.parametrize("streams", [1, 20])
def test_only_those_whose_ids_are_their_own_get_bytes_of_their_own(streams: int) -> None:
    room = Room()
    shared = [Stream(room, ["a", "b"]) for _ in range(streams)]
    own = [Stream(room, ["a", "c"]) for _ in range(streams)]
    room.publish("c", "1")
    room.publish("a", "2")
    assert all(each.sent[0] is shared[0].sent[0] for each in shared), "the same bytes"
    tick = room.ticks
    for each in own:
        assert [room.place(frame, "a", "c") for frame in each.frames()] == [
            [(tick, 0), (tick, 1)],
            [(tick, 1), (tick, 1)],
        ]
    for each in shared:
        assert [room.place(frame, "a", "b") for frame in each.frames()] == [[(tick, 1), (tick, 0)]]


def test_an_event_through_two_topics_is_in_the_id_on_both() -> None:
    room = Room()
    stream, one = Stream(room, ["a", "*"]), Stream(room, ["*", "b"])
    tick = room.ticks
    room.publish("a", "1", through=["a", "*"])
    room.delivery.deliver([room.heard("a", str(n), through=["a", "*"]) for n in (2, 3)])
    assert [room.place(frame, "a", "*") for frame in stream.frames()] == [[(tick, n), (tick, n)] for n in (1, 2, 3)]
    assert [room.place(frame, "*", "b") for frame in one.frames()] == [[(tick, n), (tick, 0)] for n in (1, 2, 3)]
    assert stream.data() == ["1", "2", "3"]


def test_publishers_ids() -> None:
    room = Room()
    channel, pattern, two = Stream(room, ["a"]), Stream(room, ["*"]), Stream(room, ["a", "b"])
    special, three = Stream(room, ["a", "c"]), Stream(room, ["a", "b", "*"])
    room.members.include(special.subscriber, "abcdef")
    room.publish("b", "0")
    room.publish("a", "1", through=["a", "*"], own_id="17")
    (own,) = channel.frames()
    assert own.id == "17"
    for stream in (pattern, two, special, three):
        (*_, last) = stream.frames()
        assert last.id is not None
        assert last.id.startswith("17~2."), "where it is on all of its topics follows"
    (*_, last) = special.frames()
    assert (last.id or "").endswith(".nabcdef")


def test_ids_of_streams_that_have_begun_with_new_topics_say_so() -> None:
    room = Room()
    plain, included = Stream(room, ["a", "b"]), Stream(room, ["a", "b"])
    room.members.include(included.subscriber, "abcdef")
    room.publish("b", "1")
    room.publish("a", "2")
    assert [frame.id for frame in included.frames()] == [f"{frame.id}.nabcdef" for frame in plain.frames()]
    assert included.data() == ["1", "2"]


def test_every_id_of_a_stream_says_whose_it_is() -> None:
    """Also where the others' ids are their publisher's alone, or there are no positions."""
    room = Room()
    for names in (["a"], ["*"], ["a", "b"]):
        room.tick()
        plain, proven, other = Stream(room, names), Stream(room, names, proof="p"), Stream(room, names, proof="q")
        room.publish("a", "1", through=["a", "*"])
        room.publish("a", "2", through=["a", "*"], own_id="17")
        room.delivery.deliver([room.heard("a", text, through=["a", "*"]) for text in "34"])
        room.topic("a").state = State.UNCOUNTED
        room.listening.uncounted[room.topic("a")] = None
        room.topic("*").state = State.UNCOUNTED
        room.listening.uncounted[room.topic("*")] = None
        room.publish("a", "5", through=["a", "*"])
        for stream, proof in ((proven, "p"), (other, "q")):
            assert stream.data() == plain.data() == list("12345")
            expected = [frame.id or "" for frame in plain.frames()]
            if names == ["a"]:
                expected[1] = f"17~2.1.{room.ticks:x}.{room.topic('a').key}:2"
            assert [frame.id for frame in stream.frames()] == [f"{id_}.s{proof}" for id_ in expected]


@pytest.mark.parametrize("size", [10, 20_000])
def test_streams_with_a_proof_that_are_behind_get_their_own_ids(size: int) -> None:
    """A large event waits in two parts, of which one is shared."""
    room = Room(queue_bytes=1_000_000)
    streams = [Stream(room, ["a"], proof=proof) for proof in "pqr"]
    streams[0].takes = QUEUE
    streams[1].takes = 5
    room.publish("a", "x" * size)
    streams[1].takes = None
    for stream, proof in zip(streams, "pqr", strict=True):
        if stream.subscriber.backlog is not None:
            while piece := stream.subscriber.take():
                stream.sent.append(piece)
        (frame,) = stream.frames()
        assert frame.data == "x" * size
        assert (frame.id or "").endswith(f".s{proof}")


def test_topics_of_the_same_short_key_are_told_apart() -> None:
    room = Room()
    a, b = room.topic("a"), room.topic("b")
    b.key = a.key
    stream = Stream(room, ["a", "b"])
    room.publish("a", "1")
    room.publish("b", "2")
    assert (stream.frames()[-1].id or "").count(a.long_key) == 1
    assert (stream.frames()[-1].id or "").count(b.long_key) == 1
    assert room.place(stream.frames()[-1], "a", "b") == [(room.ticks, 1), (room.ticks, 1)]


def test_without_positions_ids_say_so() -> None:
    room = Room()
    channel, two = Stream(room, ["a"]), Stream(room, ["a", "b"])
    included = Stream(room, ["a", "b"])
    room.members.include(included.subscriber, "abcdef")
    for name in "ab":
        room.topic(name).state = State.UNCOUNTED
        room.listening.uncounted[room.topic(name)] = None
    room.publish("a", "1")
    assert [stream.frames()[0].id for stream in (channel, two, included)] == [NOWHERE] * 3
    assert two.data() == ["1"]


def test_a_tick_is_requested_when_ids_become_long() -> None:
    room = Room()
    names = [f"c{number}" for number in range(60)]
    stream = Stream(room, names)
    needed: list[int] = []
    room.need_tick = lambda: needed.append(len(stream.sent))
    for name in names:
        room.publish(name, "x")
    assert needed
    (longest, *_) = needed
    assert len(stream.frames()[longest - 1].id or "") <= 512 < len(stream.frames()[longest].id or "")


def test_what_a_client_does_not_take_as_a_whole_follows() -> None:
    room = Room()
    for names in (["a"], ["a", "b"], ["b", "a"]):
        stream = Stream(room, names)
        stream.takes = 10
        room.publish("b", "0")
        room.publish("a", "1")
        assert stream.data()[-1] == "1"
        assert stream.rest
        assert isinstance(stream.rest[-1], bytes)
        assert stream.subscriber.backlog is None


def test_a_large_rest_is_shared() -> None:
    room = Room()
    streams = [Stream(room, names) for names in (["a"], ["a", "b"], ["a", "c"])]
    room.publish("b", "0")
    for stream in streams:
        stream.takes = 100
    room.publish("a", "x" * 20_000)
    for stream in streams:
        assert isinstance(stream.rest[-1], memoryview)
        assert stream.data()[-1] == "x" * 20_000
        stream.takes = None
    for stream in streams:
        stream.takes = QUEUE
    room.publish("b", "1")
    room.publish("a", "y" * 20_000)
    assert [stream.data()[-1] for stream in streams] == ["y" * 20_000] * 3
    assert streams[1].data()[-2] == "1"


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["b", "a", "c"]])
def test_what_a_client_cannot_take_waits_for_it(names: list[str]) -> None:
    room = Room(queue_events=5)
    stream = Stream(room, names)
    if len(names) == 3:
        room.members.include(stream.subscriber, "abcdef")
    room.publish("b", "0")
    stream.sent.clear()
    stream.takes = QUEUE
    room.now = 7.0
    for number in range(5):
        room.publish("a", str(number))
    backlog = stream.subscriber.backlog
    assert backlog is not None
    assert (backlog.events, backlog.since, stream.woken) == (5, 7.0, 5)
    assert room.members.behind == {stream.subscriber}
    room.delivery.deliver([room.heard("a", "5")])
    assert stream.subscriber.closed == "overflow"
    assert stream.aborted
    assert room.metrics.streams_closed == {"overflow": 1}


def test_each_channel_has_its_own_policy() -> None:
    room = Room(queue_events=3, overflow=("prices.*=drop-oldest", "disconnect"))
    for names in (["prices.euro"], ["prices.euro", "b"], ["prices.euro", "b", "c"]):
        stream = Stream(room, names)
        if len(names) == 3:
            room.members.include(stream.subscriber, "abcdef")
        room.publish("b", "0")
        stream.sent.clear()
        before = room.metrics.dropped_events
        stream.takes = QUEUE
        for number in range(5):
            room.publish("prices.euro", str(number))
        assert stream.subscriber.closed is None
        assert stream.data()[-3:] == ["2", "3", "4"]
        assert stream.frames()[0].type == "gateway.gap"
        assert room.metrics.dropped_events == before + 2
        room.members.leave(stream.subscriber, "client")
    assert room.metrics.gaps == {"overflow": 3}


def test_a_piece_of_ones_own_waits_behind_what_waits() -> None:
    room = Room()
    stream = Stream(room, ["a"])
    stream.takes = QUEUE
    room.publish("a", "1")
    room.delivery.send([stream.subscriber], b"data: own\n\n", 1)
    assert stream.subscriber.backlog is not None
    assert stream.subscriber.backlog.events == 2
    first = [Piece(room.members.unsent, piece) for piece in (b"data: first\n\n", b"data: second\n\n")]
    room.delivery.begin_with(stream.subscriber, iter(first))
    assert stream.data() == ["first", "second"]


def test_pings() -> None:
    room = Room()
    stream = Stream(room, ["a"])
    room.members.pinger.ping(stream.subscriber)
    assert stream.sent == [b":\n"]
    stream.takes = 1
    room.delivery.ping(stream.subscriber)
    assert stream.sent[1:] == [b":", b"\n"]
    stream.takes = QUEUE
    room.delivery.ping(stream.subscriber)
    backlog = stream.subscriber.backlog
    assert backlog is not None
    assert (backlog.bytes, backlog.events) == (2, 0)
    room.delivery.ping(stream.subscriber)
    assert backlog.bytes == 2, "bytes are under way anyway"
    stream.subscriber.sink = None
    room.delivery.ping(stream.subscriber)
    assert backlog.bytes == 2


def test_when_something_was_delivered_last() -> None:
    room = Room()
    single, joint = Stream(room, ["a"]), Stream(room, ["b", "c"])
    room.now = 50.0
    room.publish("a", "1")
    room.now = 60.0
    room.publish("b", "1")
    assert room.members.last_delivery(single.subscriber) == 50.0
    assert room.members.last_delivery(joint.subscriber) == 60.0


def test_what_arrives_together_is_one_write() -> None:
    room = Room()
    single, joint, named = Stream(room, ["a"]), Stream(room, ["a", "b"]), Stream(room, ["a"], NAMED)
    batch = [room.heard("a", "1"), room.heard("a", "2"), room.heard("b", "3"), room.heard("a", "4")]
    room.delivery.deliver(batch)
    assert (single.data(), len(single.sent)) == (["1", "2", "4"], 1)
    assert (joint.data(), len(joint.sent)) == (["1", "2", "3", "4"], 3)
    assert [frame.type for frame in named.frames()] == ["a"] * 3
    assert [room.place(frame, "a", "b") for frame in joint.frames()] == [
        [(room.ticks, a), (room.ticks, b)] for a, b in ((1, 0), (2, 0), (2, 1), (3, 1))
    ]


def test_a_write_that_fails_is_the_transports_to_find_out() -> None:
    room = Room()
    stream, own = Stream(room, ["a"]), Stream(room, ["a", "b"])

    def gone(_: bytes) -> int:
        raise OSError

    room.publish("b", "0")
    for each in (stream, own):
        each.subscriber.send = gone
    room.publish("a", "1")
    assert [len(each.rest) for each in (stream, own)] == [1, 1]
    assert (stream.data(), own.data()) == (["1"], ["0", "1"])
