"""A client that does what a browser's EventSource does, at the price of a few objects."""

import asyncio
import contextlib
import json
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast
from urllib.parse import urlencode

from chaos.answer import Answer, BadAnswer
from chaos.columns import SAME as SAME_CHANNEL
from chaos.columns import Listener
from chaos.diary import CountingDiary, Diary
from chaos.event_stream import EventStream, Message
from chaos.payload import SAME, Payload

_FIRST_RETRY = 1.0
"""Seconds before the first reconnection of a client that was told none."""

_SMALL_BUFFER = 4096
_SAME = SAME.decode()
_OF_NO_INTEREST = frozenset(("gateway.closing", "gateway.expiring"))
"""Events a page has no use for; their ids count all the same."""


@dataclass
class Target:
    """What clients ask for, and where."""

    host: str
    port: int
    listener: Listener

    def request(self, last_event_id: str) -> bytes:
        asked = [("channel", name) for name in self.listener.channels]
        asked += [("pattern", name) for name in self.listener.patterns]
        query = urlencode(asked)
        lines = [f"GET /events?{query} HTTP/1.1", f"Host: {self.host}:{self.port}", "Accept: text/event-stream"]
        if last_event_id:
            lines.append(f"Last-Event-ID: {last_event_id}")
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Ending:
    """How a stream ended.

    Attributes:
        at: `time.monotonic_ns()`.
        cleanly: with the end of the body, not with the loss of the connection.
    """

    at: int
    cleanly: bool


@dataclass
class Source:
    """Keeps a stream open, and writes down what it brings.

    Reconnects after every end of a good answer and after every network error, `retry` later, with the id it
    saw last. Anything but 200 and an event stream closes it for ever.

    Attributes:
        column: what its row is counted under.
        target: what it asks for.
        small: has a small receive buffer, so that it is felt soon when it stops reading.
        state: what `readyState` would say.
        refusal: why it is closed.
        diaries: what came, by channel.
        gaps: reasons of the gap events.
        unexpected: what no client should get.
        greeted: a stream has told it where it begins (`gateway.open`).
        away: it doesn't want to come back for now.
        opened: how often a good answer began.
        endings: how the streams ended.
        silence: the longest time without a message so far, in ns.
        latencies: of the messages, in µs, where they are collected.
    """

    column: str
    target: Target
    small: bool = False
    state: Literal["connecting", "open", "closed"] = "connecting"
    refusal: str = ""
    diaries: dict[str, Diary] = field(default_factory=dict)
    gaps: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    greeted: bool = False
    away: bool = False
    opened: int = 0
    endings: list[Ending] = field(default_factory=list)
    silence: int = 0
    latencies: list[int] | None = None

    def __post_init__(self) -> None:
        names = dict.fromkeys((*self.target.listener.channels, *self.target.listener.matched))
        self.diaries = {name: CountingDiary() if name == SAME_CHANNEL else Diary() for name in names}
        self._retry = _FIRST_RETRY
        self._last_event_id = ""
        self._last_message = time.monotonic_ns()
        self._connection: _Connection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def connect(self) -> None:
        """Begin, without waiting for what comes of it."""
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setblocking(False)
        if self.small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        try:
            await loop.sock_connect(connection, (self.target.host, self.target.port))
            await loop.create_connection(lambda: _Connection(self, self._last_event_id), sock=connection)
        except OSError:
            connection.close()
            self._later()

    def cut(self) -> None:
        """Lose the network."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()

    def leave(self) -> None:
        """Lose the network, and stay away."""
        self.away = True
        if self._timer is not None:
            self._timer.cancel()
        self.cut()

    def come_back(self) -> None:
        self.away = False
        self.connect()

    def stall(self) -> None:
        """Stop reading; what comes stays in the kernel's buffers, and then before them."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        if self._connection is not None and self._connection.transport is not None:
            with contextlib.suppress(RuntimeError):  # it has reconnected meanwhile, and was never paused
                self._connection.transport.resume_reading()

    def begin(self) -> None:
        """Forget how long it was silent."""
        self.silence = 0
        self._last_message = time.monotonic_ns()

    def report(self, until: int) -> dict[str, Any]:
        """What account.py needs.

        Args:
            until: when publishing ended, in `time.monotonic_ns()`; a client that hears nothing is silent up to there.
        """
        return {
            "column": self.column,
            "diaries": {channel: diary.entries for channel, diary in self.diaries.items()},
            "gaps": self.gaps,
            "unexpected": self.unexpected[:5],
            "opened": self.opened,
            "endings": [[ending.at, ending.cleanly] for ending in self.endings],
            "refusal": self.refusal,
            "silence": max(self.silence, until - self._last_message) / 1e9,
            "small": self.small,
        }

    # What the connection tells

    def _began(self, connection: "_Connection", answer: Answer) -> bool:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if answer.status != 200 or kind != "text/event-stream":
            self.state = "closed"
            self.refusal = f"{answer.status} {kind}"
            return False
        self._connection = connection
        self.state = "open"
        self.opened += 1
        return True

    def _dispatched(self, messages: list[Message], last_event_id: str, now: int) -> None:
        self._last_event_id = last_event_id
        for message in messages:
            if message.type == "message":
                self._message(message.data, now)
            elif message.type == "gateway.gap":
                self._gap(message.data)
            elif message.type == "gateway.open":
                self.greeted = True
                if not last_event_id:
                    self.unexpected.append("gateway.open without an id")
            elif message.type not in _OF_NO_INTEREST:
                self.unexpected.append(f"{message.type}: {message.data[:80]}")

    def _message(self, data: str, now: int) -> None:
        if data == _SAME:
            self._same()
            return
        try:
            channel, number, sent = Payload.decode(data)
            self.diaries[channel].message(number)
        except (ValueError, KeyError):
            self.unexpected.append(f"message: {data[:80]}")
            return
        if self.latencies is not None:
            self.latencies.append((now - sent) // 1000)
        if now - self._last_message > self.silence:
            self.silence = now - self._last_message
        self._last_message = now

    def _same(self) -> None:
        diary = self.diaries.get(SAME_CHANNEL)
        if isinstance(diary, CountingDiary):
            diary.same()
        else:
            self.unexpected.append("an event of another channel")

    def _gap(self, data: str) -> None:
        try:
            gap = json.loads(data)
            name: str = gap["channel"]
            if name in self.target.listener.patterns:
                for channel in self.target.listener.matched:
                    if fnmatchcase(channel, name):
                        self.diaries[channel].gap()
            else:
                self.diaries[name].gap()
            self.gaps[gap["reason"]] += 1
        except (ValueError, KeyError, TypeError):
            self.unexpected.append(f"gateway.gap: {data[:80]}")

    def _lost(self, answer: Answer) -> None:
        self._connection = None
        if self.state == "closed":
            return
        if answer.status:
            self.endings.append(Ending(time.monotonic_ns(), answer.ended))
        self.state = "connecting"
        self._later()

    def _told(self, retry: float) -> None:
        self._retry = retry

    def _later(self) -> None:
        if self.away:
            return
        # Timers of browsers are never exact, and clients in step would be a load of their own.
        self._timer = asyncio.get_running_loop().call_later(self._retry * random.uniform(1.0, 1.1), self.connect)


class _Connection(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self, source: Source, last_event_id: str) -> None:
        self.transport: asyncio.Transport | None = None
        self._source = source
        self._answer = Answer()
        self._begun = False
        self._last_event_id = last_event_id
        self._stream = EventStream(last_event_id)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        if self._source.away:
            self.transport.abort()
            return
        self.transport.write(self._source.target.request(self._last_event_id))

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        now = time.monotonic_ns()
        try:
            body = self._answer.feed(data)
        except BadAnswer as error:
            self._source.unexpected.append(str(error))
            self.transport.abort()
            return
        if self._answer.status and not self._begun:
            self._begun = True
            if not self._source._began(self, self._answer):
                self.transport.abort()
                return
        if body:
            messages = self._stream.feed(body)
            if self._stream.retry is not None:
                self._source._told(self._stream.retry)
            self._source._dispatched(messages, self._stream.last_event_id, now)
        if self._answer.ended:
            self.transport.abort()

    def eof_received(self) -> None:
        self._answer.eof()

    def connection_lost(self, _: Exception | None) -> None:
        self._source._lost(self._answer)
