"""The way into a stream. All is real around it but Redis: the test says what is heard, and what others know."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from gateway.broker.topics import WantedTopics
from gateway.fanout.admission import Admission
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.in_band import ended
from gateway.fanout.members import Members
from gateway.fanout.subscriber import QUEUE, Subscriber
from gateway.memory.catch_up import Wish
from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event
from gateway.memory.glob import compile_glob
from gateway.memory.history import History
from gateway.memory.hole import Hole
from gateway.memory.listening import Key, Listening
from gateway.memory.place import NO_SUFFIX, Suffix
from gateway.memory.position import Position
from gateway.memory.tick import Tick
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import Heard, Newest, StoreFailed
from gateway.settings import Settings
from tests.unit.model.client import Frame, frames

ENCODING = Encodings(0).get(chunked=False, named=False)
_SERVER = "redis"
Result = TypeVar("Result")


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until a test has it pass."""

    now = 0.0

    def time(self) -> float:
        return self.now


def run(play: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    with asyncio.Runner(loop_factory=StillLoop) as runner:
        return runner.run(play())


async def idle() -> None:
    """Until nobody goes on without something new."""
    for _ in range(100):
        await asyncio.sleep(0)


class Asked:
    """What was asked of others, and waits for the test's answers.

    Attributes:
        of_redis_alone: how many of the questions about holes.
        ended: channels that are over.
        about_ends: the channels that were asked about.
        is_away: whether Redis can't be asked about these.
    """

    def __init__(self) -> None:
        self.verifying: list[asyncio.Future[None]] = []
        self.finding: list[tuple[Topic, Hole, asyncio.Future[list[Kept]]]] = []
        self.reading: list[tuple[Mapping[Topic, Position], asyncio.Future[Newest]]] = []
        self.of_redis_alone = 0
        self.ended: set[str] = set()
        self.about_ends: list[Sequence[str]] = []
        self.is_away = False

    async def over(self, channels: Sequence[str]) -> list[bool]:
        self.about_ends.append(channels)
        if self.is_away:
            raise StoreFailed("away")
        return [name in self.ended for name in channels]

    async def verify(self, elsewhere: bool = False) -> None:
        future = asyncio.get_running_loop().create_future()
        self.verifying.append(future)
        await future

    async def find(self, topic: Topic, hole: Hole, workers: bool = True) -> list[Kept]:
        self.of_redis_alone += not workers
        future: asyncio.Future[list[Kept]] = asyncio.get_running_loop().create_future()
        self.finding.append((topic, hole, future))
        return await future

    async def newest(self, ends: Mapping[Topic, Position], count: int, after: tuple[int, int] | None) -> Newest:
        future: asyncio.Future[Newest] = asyncio.get_running_loop().create_future()
        self.reading.append((ends, future))
        return await future


class Socket:
    """A stream's connection, which takes everything, or nothing while it is `full`.

    Attributes:
        written: what the client has got.
        ended: how.
        takes: as many bytes of the next piece at most; the rest is the transport's, which is full then.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self.written = b""
        self.ended = ""
        self.full = False
        self.takes: int | None = None

    def send(self, piece: bytes) -> int:
        if self.full:
            return QUEUE
        taken = piece[: self.takes]
        self.written += taken
        return len(taken)

    def send_rest(self, rest: bytes | memoryview) -> None:
        self.written += rest
        self.full = True

    def wake(self) -> None:
        """It is asked with `drain`."""

    def drain(self) -> None:
        """Read what waits."""
        self.full = False
        while piece := self._subscriber.take():
            self.written += piece

    def finish(self, last: bytes, torn: bool) -> None:
        self.drain()
        self.written += last
        self.ended = "torn" if torn else "cleanly"

    def abort(self) -> None:
        self.ended = "cut"


class Entrance:
    """One worker's members and their admission.

    Attributes:
        encoding: of the streams to come.
    """

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.encoding = ENCODING
        self.settings = Settings(**settings)
        self.metrics = Metrics()
        self.history = History(self.settings, self.clock)
        self.listening = Listening(self.history)
        self.topics = WantedTopics(
            self.listening,
            self.history,
            b"",
            self.settings.max_channels,
            self.settings.linger,
            self.clock,
            self.settings.max_patterns,
        )
        self.members = Members(
            self.settings, self.settings.max_streams or 1000, self.topics, self.metrics, self.clock
        )
        self.delivery = Delivery(self.settings, self.members, self.listening, self.metrics, self.clock, lambda: None)
        self.asked = Asked()
        self.admission = Admission(
            self.settings,
            self.members,
            self.delivery,
            self.topics,
            self.listening,
            self.delivery.commit,
            self.asked,
            self.asked,
            self.asked,
            self.metrics,
            self.clock,
        )
        self.ticks = 0
        self._published: dict[Topic, list[Entry]] = {}
        self.connect()

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        loop.now = self.now

    # -- what comes from Redis

    def connect(self) -> None:
        self.listening.connect(_SERVER)
        self._subscribed: dict[Key, None] = {}

    def confirm(self, *names: str) -> None:
        """Redis has answered the requests for these channels and patterns."""
        for name in names:
            key = self.topics.key(self.topic(name))
            # Redis sends the copy for the channel first.
            self._subscribed = dict.fromkeys(sorted([*self._subscribed, key]))
            self.listening.subscribed(key, True)

    def tick(self) -> None:
        self.delivery.commit()
        self.ticks += 1
        opened = self.listening.tick(Tick(1, self.ticks, _SERVER, {}))
        self.delivery.ticked()
        self.admission.opened(opened)

    def open(self, *names: str) -> None:
        """Redis confirms them, and a tick comes."""
        self.confirm(*names)
        self.tick()

    def publish(self, *published: tuple[str, str]) -> None:
        """What arrives together: channels and texts."""
        batch = []
        for name, text in published:
            channel = name.encode()
            copies = [self.listening.heard(key, channel, b"") for key in self._subscribed if _matches(key, channel)]
            topics = copies[0] if copies else None
            if not topics:
                continue
            event = Event(text.encode())
            positions = tuple(self.listening.count(topic, 0) for topic in topics)
            for topic, position in zip(topics, positions, strict=True):
                if position is not None:
                    entry = Entry(position, name, event)
                    self.history.append(topic.ring, entry)
                    self._published.setdefault(topic, []).append(entry)
            batch.append(Heard(name, event, topics, positions))
        if batch:
            self.delivery.deliver(batch)

    def end(self, *channels: str) -> None:
        """Redis says that these channels are over."""
        batch: list[Heard] = []
        for name in channels:
            topic = self.topic(name)
            position = self.listening.count(topic, self.ticks * 1000 + len(batch))
            assert position is not None
            entry = Entry(position, name, ended(name))
            self.history.append(topic.ring, entry)
            topic.over = True
            batch.append(Heard(name, entry.event, (topic,), (position,)))
        self.delivery.deliver(batch)
        self.admission.over([self.topic(name) for name in channels])

    def others_answer(self) -> None:
        """All that was published is known to others."""
        for topic, hole, future in self.asked.finding:
            if not future.done():
                kept = self._published.get(topic, [])
                future.set_result([each for each in kept if hole.position < each.position <= hole.end])
        self.asked.finding.clear()

    def lose(self) -> None:
        """The connection is lost, and there is another one."""
        self.delivery.commit()
        self.admission.lost()
        self.listening.lose()
        self.topics.ask_for_all()
        self.connect()

    # -- streams

    def topic(self, name: str) -> Topic:
        topic = self.topics.find(name, "*" in name)
        assert topic is not None, name
        return topic

    def register(self, *names: str, proof: str = "") -> Subscriber:
        channels = [name for name in names if "*" not in name]
        patterns = [name for name in names if "*" in name]
        suffix = Suffix(proof=proof) if proof else NO_SUFFIX
        return self.admission.register(channels, patterns, self.encoding, suffix)

    def enter(self, *names: str, last_event_id: str | None = None, proof: str = "") -> "Stream":
        """A stream, which begins as soon as it can."""
        return Stream(self, names, Wish(last_event_id, proof=proof))


def _matches(key: Key, channel: bytes) -> bool:
    is_pattern, name = key
    return compile_glob(name).fullmatch(channel) is not None if is_pattern else name == channel


class Stream:
    """One stream, from its request on.

    Attributes:
        refusal: why it can't be had.
    """

    def __init__(self, entrance: Entrance, names: Sequence[str], wish: Wish) -> None:
        self._entrance = entrance
        self.subscriber = entrance.register(*names, proof=wish.proof)
        self.socket = Socket(self.subscriber)
        self.refusal: Exception | None = None
        self.task = asyncio.create_task(self._begin(wish))

    async def _begin(self, wish: Wish) -> None:
        admission = self._entrance.admission
        try:
            first = admission.begin_now(self.subscriber, wish)
            if first is None:
                first = await admission.begin(self.subscriber, wish)
        except Exception as error:
            self.refusal = error
            return
        self.socket.written += first
        self.subscriber.sink = self.socket
        self.socket.drain()
        self.subscriber.send = self.socket.send

    @property
    def begun(self) -> bool:
        return self.subscriber.sink is not None

    @property
    def frames(self) -> list[Frame]:
        return frames(self.socket.written)

    @property
    def texts(self) -> list[str]:
        """The data of its messages; of gaps and of what ends it, the type."""
        own = [each for each in self.frames if each.type != "gateway.open"]
        return [each.data if each.type == "message" else each.type for each in own]

    @property
    def last_event_id(self) -> str:
        return [each.id for each in self.frames if each.id][-1]

    def leave(self) -> None:
        self._entrance.members.leave(self.subscriber, "client")
