"""The process that publishes, at a steady rate whatever happens: `python -m chaos.publisher`.

It does not wait for one answer before it sends the next message, as the many publishers of a real system do not
wait for each other: when Redis hangs, messages pile up in front of it and all arrive the moment it wakes.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
import uvloop

from chaos.orders import Order, orders, tell
from chaos.payload import Payload

_STATUS_SECONDS = 0.05
_AGAIN_SECONDS = 0.02


@dataclass
class Column:
    """One way to publish.

    Attributes:
        command: the words before channel and payload.
        channels: used in turn.
        size: of a message, in bytes.
    """

    command: list[str]
    channels: list[str]
    size: int

    def __post_init__(self) -> None:
        self.turn = itertools.cycle(self.channels)


@dataclass
class Publisher:
    """Publishes to one Redis over one connection.

    Attributes:
        records: by channel; of each message the time it was sent, the time Redis answered (0: it did not, so nobody
            knows; -1: it refused) and how many connections got it.
    """

    host: str
    port: int
    rate: float
    columns: list[Column]
    records: dict[str, list[list[int]]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    late: int = 0

    def __post_init__(self) -> None:
        self.records = {channel: [] for column in self.columns for channel in column.channels}
        self.heard = [0, 0]
        self.publishing = True
        self._connection: _Connection | None = None

    async def run(self) -> None:
        following = asyncio.create_task(self._follow())
        step = 1 / self.rate
        due = time.monotonic()
        try:
            while self.publishing:
                for column in self.columns:
                    self._publish(column, next(column.turn))
                due += step
                pause = due - time.monotonic()
                if pause < -1:  # this process was held up: do not make up for it with a burst
                    self.late += 1
                    due = time.monotonic()
                await asyncio.sleep(max(0.0, pause))
            if self._connection is not None:
                await self._connection.answered()
        finally:
            following.cancel()

    def aim(self, host: str, port: int) -> None:
        """Publish to another Redis from now on."""
        self.host, self.port = host, port
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()

    def _publish(self, column: Column, channel: str) -> None:
        if self._connection is None or self._connection.transport is None:
            return
        now = time.monotonic_ns()
        record = [now, 0, 0]
        payload = Payload(channel, len(self.records[channel]), now).encode(column.size)
        self.records[channel].append(record)
        self._connection.send(record, (*column.command, channel, payload))

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
        self._waiting: deque[list[int]] = deque()
        self._idle = asyncio.Event()
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, record: list[int], words: tuple[str | bytes, ...]) -> None:
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
                record[1] = -1
                self._publisher.refusals[str(answer)[:120]] += 1
                continue
            record[1] = time.monotonic_ns()
            if isinstance(answer, int):
                record[2] = answer
                self._publisher.heard = [record[0], answer]
        if not self._waiting:
            self._idle.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        self.lost.set()
        self._idle.set()


async def main() -> None:
    publisher: Publisher | None = None
    running: asyncio.Task[None] | None = None

    async def tell_status() -> None:
        while True:
            if publisher is not None:
                tell("status", heard=publisher.heard, next=_lengths(publisher))
            await asyncio.sleep(_STATUS_SECONDS)

    telling = asyncio.create_task(tell_status())
    async for order in orders():
        match order.pop("do"):
            case "start":
                publisher = _publisher(order)
                running = asyncio.create_task(publisher.run())
            case "aim" if publisher is not None:
                publisher.aim(order["host"], order["port"])
            case "mark" if publisher is not None:
                tell("mark", next=_lengths(publisher))
            case "stop" if publisher is not None and running is not None:
                publisher.publishing = False
                await running
                tell("record", records=publisher.records, refusals=publisher.refusals, late=publisher.late)
    telling.cancel()
    if running is not None:
        running.cancel()


def _lengths(publisher: Publisher) -> dict[str, int]:
    return {channel: len(records) for channel, records in publisher.records.items()}


def _publisher(order: Order) -> Publisher:
    columns: list[dict[str, Any]] = order.pop("columns")
    return Publisher(**order, columns=[Column(**column) for column in columns])


if __name__ == "__main__":
    uvloop.run(main())
