"""Large fan-outs in turns: everybody has everything once and in order, and small channels don't wait."""

import asyncio
import random
from collections.abc import Callable

import pytest

from gateway.broker.topics import WantedTopics
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.slices import SLICE
from gateway.fanout.subscriber import Subscriber, queue
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.tick import Tick
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings
from tests.unit.entrance import Entrance, idle

ENCODING = Encodings(0).get(chunked=False, named=False)


class Room:
    """Members whose streams write into lists."""

    def __init__(self, note: Callable[[str], None] = lambda _: None) -> None:
        settings = Settings(history_events=0, queue_events=10_000, queue_bytes=10_000_000)
        history = History(settings, lambda: 0.0)
        self.listening = Listening(history)
        self.listening.connect("redis")
        self.topics = WantedTopics(self.listening, history, b"", 10, 60, lambda: 0.0, 1000)
        self.members = Members(settings, 1_000_000, self.topics, Metrics(), lambda: 0.0)
        self.delivery = Delivery(settings, self.members, self.listening, Metrics(), lambda: 0.0)
        self.ticks = 0
        self.got: dict[Subscriber, list[bytes]] = {}
        self.note = note

    def enter(self, channel: str) -> Subscriber:
        topic = self.topics.want(channel, False)
        subscriber = self.members.register([topic], ENCODING)
        pieces = self.got[subscriber] = []

        def send(piece: bytes) -> int:
            pieces.append(piece)
            self.note(channel)
            return len(piece)

        subscriber.send = send
        if not topic.heard:
            self.listening.subscribed(self.topics.key(topic), True)
            self.ticks += 1
            self.listening.tick(Tick(1, self.ticks, "redis", {}))
            self.delivery.ticked()
        self.members.join(subscriber)
        return subscriber

    def publish(self, channel: str, text: str) -> None:
        topic = self.topics.find(channel, False)
        assert topic is not None
        position = self.listening.count(topic, 0)
        self.delivery.deliver([Heard(channel, Event(text.encode()), (topic,), (position,))])

    def texts(self, subscriber: Subscriber) -> list[str]:
        stream = b"".join(self.got[subscriber]) + subscriber.take()
        return [frame.partition("data: ")[2] for frame in stream.decode().split("\n\n") if frame]


async def _idle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


def test_everybody_has_everything_once_and_in_order_whoever_comes_and_goes() -> None:
    async def play() -> None:
        room = Room()
        members = [room.enter("big") for _ in range(3 * SLICE + 7)]
        expected: dict[Subscriber, list[str]] = {member: [] for member in members}
        chance = random.Random(1)
        for number in range(60):
            for texts in expected.values():
                texts.append(str(number))
            room.publish("big", str(number))
            if chance.random() < 0.3:
                expected[room.enter("big")] = []
            if chance.random() < 0.3:
                leaving = chance.choice(list(expected))
                room.members.leave(leaving, "client")
                # What it had is the beginning of what it should have had.
                said = expected.pop(leaving)
                assert room.texts(leaving) == said[: len(room.texts(leaving))]
            if chance.random() < 0.2:
                slow = chance.choice(list(expected))
                slow.send = queue
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await _idle()
        for member, texts in expected.items():
            assert room.texts(member) == texts

    asyncio.run(play())


def test_a_small_channel_gets_its_turn_in_between() -> None:
    async def play() -> None:
        order: list[str] = []
        room = Room(order.append)
        for _ in range(10 * SLICE):
            room.enter("big")
        room.enter("small")
        room.publish("big", "x")
        await asyncio.sleep(0)
        room.publish("small", "y")
        await _idle()
        assert order.count("big") == 10 * SLICE
        assert order.index("small") <= 2 * SLICE

    asyncio.run(play())


def test_what_comes_meanwhile_is_written_together() -> None:
    async def play() -> None:
        room = Room()
        member = room.enter("big")
        for _ in range(2 * SLICE):
            room.enter("big")
        for number in range(50):
            room.publish("big", str(number))
        await _idle()
        assert room.texts(member) == [str(number) for number in range(50)]
        assert len(room.got[member]) <= 2

    asyncio.run(play())


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_waits_for_its_turn_is_bounded(size: int) -> None:
    async def play() -> None:
        room = Room()
        members = [room.enter("big") for _ in range(SLICE + 1)]
        for number in range(30):
            room.publish("big", f"{number}:" + "x" * size)
        waiting = 30 - len(room.texts(members[0]))
        assert waiting * size <= 1_048_576
        await _idle()
        assert len(room.texts(members[-1])) == 30

    asyncio.run(play())


@pytest.mark.parametrize("encodings", [1, 2])
def test_streams_of_all_encodings_have_everything_with_its_channel(encodings: int) -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = []
        for _ in range(encodings):  # of the same form
            entrance.encoding = Encodings(0).get(chunked=False, named=True)
            streams += [entrance.enter("p*") for _ in range(SLICE + 1)]
        await idle()
        entrance.open("p*")
        await idle()
        channels = ["p1", "p2", "p2", "p1"]
        for number, channel in enumerate(channels):
            entrance.publish((channel, str(number)))
        await idle()
        for stream in streams:
            assert [(frame.type, frame.data) for frame in stream.frames[1:]] == [
                (channel, str(number)) for number, channel in enumerate(channels)
            ]

    asyncio.run(play())
