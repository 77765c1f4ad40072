"""Large fan-outs to streams of several topics: in turns, everything once, in order, and with ids that are true."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from gateway.broker.topics import WantedTopics
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.subscriber import queue
from gateway.fanout.turns import PART
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.place import Place, parse_place
from gateway.memory.tick import Tick
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings
from tests.unit.model.client import Frame, frames

ENCODING = Encodings(0).get(chunked=False, named=False)


class Stream:
    """One that listens to several channels, and what it should have been sent."""

    def __init__(self, room: "Room", names: Sequence[str]) -> None:
        self._room = room
        self.names = names
        self.sent = b""
        self.writes = 0
        self.expected: list[str] = []
        topics = [room.topic(name) for name in names]
        self.subscriber = room.members.register(topics, ENCODING)
        self.subscriber.send = self._send
        room.commit()
        room.members.join(self.subscriber)

    def _send(self, piece: bytes) -> int:
        self.sent += piece
        self.writes += 1
        self._room.note(self.names[0])
        return len(piece)

    def leave(self) -> None:
        self._room.members.leave(self.subscriber, "client")

    @property
    def frames(self) -> list[Frame]:
        return frames(self.sent + self.subscriber.take())


class Room:
    """A worker's streams, with the link that hears for them."""

    def __init__(self, note: Callable[[str], None] = lambda _: None) -> None:
        settings = Settings(history_events=0, queue_events=100_000, queue_bytes=100_000_000)
        history = History(settings, lambda: 0.0)
        self.listening = Listening(history)
        self.listening.connect("redis")
        self._wanted = WantedTopics(self.listening, history, b"", 10_000, 60, lambda: 0.0, 100)
        self.members = Members(settings, 1_000_000, self._wanted, Metrics(), lambda: 0.0)
        self.delivery = Delivery(settings, self.members, self.listening, Metrics(), lambda: 0.0)
        self.commit = self.delivery.commit
        self.note = note
        self.streams: list[Stream] = []
        self.ticks = 0
        self.at: dict[tuple[int, str], int] = {}
        self.tick()

    def topic(self, name: str) -> Topic:
        topic = self._wanted.want(name, False)
        if not topic.heard:
            self.listening.subscribed(self._wanted.key(topic), True)
            self.tick()
        return topic

    def tick(self) -> None:
        self.commit()
        self.ticks += 1
        self.listening.tick(Tick(1, self.ticks, "redis", {}))
        self.delivery.ticked()

    def enter(self, *names: str) -> Stream:
        stream = Stream(self, names)
        self.streams.append(stream)
        return stream

    def publish(self, *published: tuple[str, str]) -> None:
        """What arrives together."""
        batch = []
        for name, text in published:
            topic = self._wanted.find(name, False)
            assert topic is not None
            position = self.listening.count(topic, 0)
            batch.append(Heard(name, Event(text.encode()), (topic,), (position,)))
            for stream in self.streams:
                if name in stream.names:
                    stream.expected.append(f"{name} {text}")
        self.delivery.deliver(batch)


def run(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(play())


async def _idle() -> None:
    for _ in range(1000):
        await asyncio.sleep(0)


def _check(room: Room, stream: Stream) -> None:
    """Each id stands for what the stream has had: as many on each topic as were counted since the tick."""
    counts: dict[tuple[int, str], int] = {}
    for frame in stream.frames:
        _, place = parse_place(frame.id or "")
        assert isinstance(place, Place)
        name = frame.data.partition(" ")[0]
        for each in stream.names:
            count = place.at(room.topic(each)).count
            before = counts.get((place.tick, each), 0)
            if each == name:
                assert count > before, "each message moves its topic on"
            elif before:
                assert count == before, "an id must not stand for what comes later"
            counts[place.tick, each] = count


def test_everybody_has_everything_once_and_in_order_whoever_comes_and_goes() -> None:
    async def play(seed: int) -> None:
        chance = random.Random(seed)
        room = Room()
        for number in range(2 * PART + 7):
            room.enter("big", f"own.{number % 40}")
        gone: list[Stream] = []
        for number in range(120):
            names = chance.choices(["big", "other", *(f"own.{each}" for each in range(5))], k=chance.randrange(1, 4))
            for name in names:
                room.topic(name)
            room.publish(*[(name, f"{name} {number}.{place}") for place, name in enumerate(names)])
            if chance.random() < 0.2:
                room.enter("big", "other")
            if chance.random() < 0.1:
                leaving = room.streams.pop(chance.randrange(len(room.streams)))
                leaving.leave()
                gone.append(leaving)
            if chance.random() < 0.1:
                room.tick()
            if chance.random() < 0.1:
                chance.choice(room.streams).subscriber.send = queue
            if chance.random() < 0.05:
                stream = chance.choice(room.streams)
                room.commit()
                room.delivery.settle(stream.subscriber.topics)
                assert [f"{each.data.partition(' ')[0]} {each.data}" for each in stream.frames] == stream.expected
                stream.expected.clear()
                stream.sent = b""
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await _idle()
        for stream in room.streams:
            got = [f"{each.data.partition(' ')[0]} {each.data}" for each in stream.frames]
            assert got == stream.expected
        for stream in gone:
            got = [f"{each.data.partition(' ')[0]} {each.data}" for each in stream.frames]
            assert got == stream.expected[: len(got)]

    for seed in range(8):
        run(lambda: play(seed))  # noqa: B023


def test_ids_stand_for_what_was_sent() -> None:
    async def play() -> None:
        chance = random.Random(5)
        room = Room()
        for number in range(PART + 50):
            room.enter("big", f"own.{number}")
        for number in range(60):
            name = chance.choice(["big", *(f"own.{each}" for each in range(10))])
            room.publish((name, f"{name} {number}"))
            if chance.random() < 0.1:
                room.tick()
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        await _idle()
        for stream in room.streams:
            _check(room, stream)

    run(play)


def test_another_channel_gets_its_turn_in_between() -> None:
    async def play() -> None:
        order: list[str] = []
        room = Room(order.append)
        for _ in range(10 * PART):
            room.enter("big", "beside")
        single = room.enter("small")
        room.publish(("big", "x"))
        await asyncio.sleep(0)
        room.publish(("small", "y"))
        await _idle()
        assert order.count("big") == 10 * PART
        assert order.index("small") <= 2 * PART
        assert single.writes == 1

    run(play)


def test_what_comes_meanwhile_is_written_together() -> None:
    async def play() -> None:
        room = Room()
        stream = room.enter("big", "own.x")
        for number in range(2 * PART):
            room.enter("big", f"own.{number}")
        for number in range(50):
            room.publish(("big", f"{number}"))
        await _idle()
        assert [each.data for each in stream.frames] == [f"{number}" for number in range(50)]
        assert stream.writes <= 2

    run(play)


@pytest.mark.parametrize("together", [1, 5])
def test_what_waits_for_its_turn_is_bounded(together: int) -> None:
    async def play() -> None:
        room = Room()
        for number in range(PART + 1):
            room.enter("big", f"own.{number % 3}")
        for number in range(0, 30, together):
            room.publish(*[("big", f"{number + place}:" + "x" * 100_000) for place in range(together)])
            waiting = number + together - len(room.streams[-1].frames)
            assert waiting * 100_000 <= 1_048_576 + together * 100_000
        await _idle()
        assert len(room.streams[-1].frames) == 30

    run(play)


def test_what_has_been_sent_waits_no_more() -> None:
    async def play() -> None:
        room = Room()
        for number in range(PART + 1):
            room.enter("big", f"own.{number % 3}")
        for turn in range(1, 4):
            for number in range(5):
                room.publish(("big", f"{number}:" + "x" * 100_000))
            assert len(room.streams[-1].frames) == 5 * (turn - 1), "it waits"
            await _idle()
            assert len(room.streams[-1].frames) == 5 * turn

    run(play)


def test_fan_outs_that_wait_are_bounded_by_their_recipients() -> None:
    async def play() -> None:
        room = Room()
        for number in range(10 * PART):
            room.enter("big", f"own.{number % 3}")
        for _ in range(2):
            before = len(room.streams[-1].frames)
            for number in range(45):
                assert len(room.streams[-1].frames) - before <= (0 if number <= 39 else 41)
                room.publish(("big", str(number)))
                room.commit()  # each is a fan-out of its own
            assert len(room.streams[-1].frames) - before == 41, "more than a hundred thousand"
            await _idle()
            assert len(room.streams[-1].frames) - before == 45

    run(play)
