"""The process that publishes, at a steady rate whatever happens: `python -m chaos.publisher`.

It does not wait for one answer before it sends the next message, as the many publishers of a real system do not
wait for each other: when Redis hangs, messages pile up in front of it and all arrive the moment it wakes.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
import uvloop

from chaos.columns import Feed
from chaos.orders import Order, orders, tell
from chaos.payload import SAME, Payload

_STATUS_SECONDS = 0.05
_AGAIN_SECONDS = 0.02
_STEP_SECONDS = 0.005
"""Faster feeds send several messages at once."""


class Record:
    """What became of one message.

    Attributes:
        sent: when, in `time.monotonic_ns()`.
        answered: when Redis took it; 0: it did not answer, so nobody knows; -1: it refused.
        durable: it was published to be kept.
        witness: Redis' answer tells how many workers listen.
    """

    __slots__ = ("answered", "durable", "sent", "witness")

    def __init__(self, sent: int, durable: bool, witness: bool) -> None:
        self.sent, self.answered = sent, 0
        self.durable, self.witness = durable, witness


class Sequencer:
    """Which message of a feed is next.

    Attributes:
        only_plain: nothing is kept any more, whatever the feed says.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.only_plain = False
        self._count = 0

    def next(self) -> tuple[str, bool]:
        """Its channel, and whether it is to be kept."""
        round_, place = divmod(self._count, len(self.feed.channels))
        self._count += 1
        durable = self.feed.durable and (not self.feed.plain or (round_ + place) % 2 == 1)
        return self.feed.channels[place], durable and not self.only_plain


@dataclass
class Publisher:
    """Publishes to one Redis over one connection.

    Attributes:
        size: of a message, in bytes.
        records: by channel, of each message.
        heard: when the last witness was sent, and how many connections got it.
        refusals: what Redis said of messages it did not take.
        late: how often this process was held up.
    """

    host: str
    port: int
    size: int
    feeds: list[Feed]
    records: dict[str, list[Record]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    late: int = 0

    def __post_init__(self) -> None:
        self.records = {channel: [] for feed in self.feeds for channel in feed.channels}
        self.heard = [0, 0]
        self._sequencers = [Sequencer(feed) for feed in self.feeds]
        self._connection: _Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks.append(asyncio.create_task(self._follow()))
        self.wake("")

    def wake(self, phase: str) -> None:
        """Begin with the feeds of a phase."""
        self._tasks += [asyncio.create_task(self._run(one)) for one in self._sequencers if one.feed.phase == phase]

    def only_plain(self, name: str) -> None:
        """From now on keep nothing of a feed."""
        for sequencer in self._sequencers:
            sequencer.only_plain = sequencer.only_plain or sequencer.feed.name == name

    async def finish(self) -> None:
        """Stop, with a last message on every channel, so that nothing is missing at the end without being seen."""
        following, *running = self._tasks
        for task in running:
            task.cancel()
        for sequencer in self._sequencers:
            for _ in sequencer.feed.channels:
                self._publish(sequencer, last=True)
        if self._connection is not None:
            await self._connection.answered()
        following.cancel()

    def aim(self, host: str, port: int) -> None:
        """Publish to another Redis from now on."""
        self.host, self.port = host, port
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()

    def taken(self, name: str) -> int:
        """How many messages of a feed Redis has taken."""
        channels = next(feed.channels for feed in self.feeds if feed.name == name)
        return sum(record.answered > 0 for channel in channels for record in self.records[channel])

    async def _run(self, sequencer: Sequencer) -> None:
        step = max(1 / sequencer.feed.rate, _STEP_SECONDS)
        count = round(sequencer.feed.rate * step)
        due = time.monotonic()
        while True:
            for _ in range(count):
                self._publish(sequencer)
            due += step
            pause = due - time.monotonic()
            if pause < -1:  # this process was held up: do not make up for it with a burst
                self.late += 1
                due = time.monotonic()
            await asyncio.sleep(max(0.0, pause))

    def _publish(self, sequencer: Sequencer, last: bool = False) -> None:
        if self._connection is None or self._connection.transport is None:
            return
        feed = sequencer.feed
        channel, durable = sequencer.next()
        now = time.monotonic_ns()
        number = len(self.records[channel])
        record = Record(now, durable, feed.witness)
        payload = SAME
        if not feed.markers or number % feed.markers == 0 or last:
            payload = Payload(channel, number, now).encode(self.size)
        self.records[channel].append(record)
        command = ("FCALL", "gateway_publish", "1") if durable else ("PUBLISH",)
        self._connection.send(record, (*command, channel, payload))

    async def _follow(self) -> None:
        """Keep connected."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(1):
                    _, connection = await loop.create_connection(lambda: _Connection(self), self.host, self.port)
            except OSError:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            self._connection = connection
            await connection.lost.wait()
            self._connection = None
            await asyncio.sleep(_AGAIN_SECONDS)


class _Connection(asyncio.Protocol):
    """Commands in a row, and their answers."""

    def __init__(self, publisher: Publisher) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self._publisher = publisher
        self._waiting: deque[Record] = deque()
        self._idle = asyncio.Event()
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, record: Record, words: tuple[str | bytes, ...]) -> None:
        assert self.transport is not None
        self._waiting.append(record)
        self.transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]

    async def answered(self) -> None:
        """Wait until Redis has answered everything, or is gone."""
        if self._waiting and self.transport is not None:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._idle.wait()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            record = self._waiting.popleft()
            if isinstance(answer, hiredis.ReplyError):
                record.answered = -1
                self._publisher.refusals[str(answer)[:120]] += 1
                continue
            record.answered = time.monotonic_ns()
            if record.witness:
                self._publisher.heard = [record.sent, answer]
        if not self._waiting:
            self._idle.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        self.lost.set()
        self._idle.set()


async def main() -> None:
    publisher: Publisher | None = None

    async def tell_status() -> None:
        while True:
            if publisher is not None:
                tell("status", heard=publisher.heard)
            await asyncio.sleep(_STATUS_SECONDS)

    telling = asyncio.create_task(tell_status())
    async for order in orders():
        match order.pop("do"):
            case "start":
                publisher = _publisher(order)
                publisher.start()
            case "aim" if publisher is not None:
                publisher.aim(order["host"], order["port"])
            case "wake" if publisher is not None:
                publisher.wake(order["phase"])
            case "only plain" if publisher is not None:
                publisher.only_plain(order["feed"])
            case "taken" if publisher is not None:
                tell("taken", count=publisher.taken(order["feed"]))
            case "finish" if publisher is not None:
                await publisher.finish()
                records = {
                    channel: [[record.sent, record.answered, int(record.durable)] for record in records]
                    for channel, records in publisher.records.items()
                }
                tell("record", records=records, refusals=publisher.refusals, late=publisher.late)
    telling.cancel()


def _publisher(order: Order) -> Publisher:
    feeds: list[dict[str, Any]] = order.pop("feeds")
    return Publisher(**order, feeds=[Feed(**{**feed, "channels": tuple(feed["channels"])}) for feed in feeds])


if __name__ == "__main__":
    uvloop.run(main())
