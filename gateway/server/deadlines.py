"""How long a connection may take for what it is doing."""

import asyncio
from itertools import islice, takewhile
from typing import Protocol

from gateway.settings import Settings

_STEP = 0.5
"""Longest time between two sweeps, in seconds: an end comes late by so much."""

_AT_ONCE = 200
"""Connections ended before others have their turn; each takes some 20 µs."""

LAST_BYTES = 5.0
"""Seconds for a connection that is being closed: its client has to read what was written last, and stop sending."""

LONG = 1.0
"""Seconds after which a connection without a request may have to make room for another one."""


class Limited(Protocol):
    """A connection.

    Attributes:
        limit: the limit that runs; `Deadlines` sets it.
    """

    limit: "Limit | None"

    def on_late(self, limit: "Limit") -> None:
        """The time is over, and the limit runs no more."""


class Limit:
    """One kind of limit: the connections for which it runs, the earliest end first.

    All have equally long, so the order in which they came is the order in which they end.

    Args:
        seconds: how long.
    """

    __slots__ = ("ends", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends: dict[Limited, float] = {}


class Deadlines:
    """One sweep over all connections that have to be done in time; there is none while no connection has to.

    A timer for each would be set and cancelled for every request.

    Attributes:
        head: from accept or the first byte to the end of a request's headers.
        body: from there to the end of its body.
        idle: between two requests.
        leaving: from the close to the end.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.head = Limit(settings.head_timeout)
        self.body = Limit(settings.body_timeout)
        self.idle = Limit(settings.keepalive_timeout)
        self.leaving = Limit(LAST_BYTES)
        self._limits = (self.head, self.body, self.idle, self.leaving)
        self._step = min(_STEP, *(limit.seconds / 10 for limit in self._limits))
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self, connection: Limited, limit: Limit) -> None:
        """Have a limit run for a connection, instead of the one that runs."""
        self.stop(connection)
        loop = self._loop
        if loop is None:  # the server is made before there is one
            loop = self._loop = asyncio.get_running_loop()
        limit.ends[connection] = loop.time() + limit.seconds
        connection.limit = limit
        if self._timer is None:
            self._timer = loop.call_later(self._step, self._sweep)

    def stop(self, connection: Limited) -> None:
        """The connection has done what it had to, or is gone; the second time does nothing."""
        if connection.limit is not None:
            del connection.limit.ends[connection]
            connection.limit = None

    def make_room(self) -> bool:
        """End the connection that has waited longest for its request, if that is long; whether there was one.

        So whoever sends a request at once, as a health check does, is served although thousands send nothing.
        """
        assert self._loop is not None
        for connection, end in self.head.ends.items():
            if end - self.head.seconds > self._loop.time() - LONG:
                return False
            self.stop(connection)
            connection.on_late(self.head)
            return True
        return False

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        step = self._step
        for limit in self._limits:
            late = list(islice(takewhile(lambda entry: entry[1] <= now, limit.ends.items()), _AT_ONCE))
            for connection, _ in late:
                self.stop(connection)
                connection.on_late(limit)
            if len(late) == _AT_ONCE:
                step = 0
        pending = any(limit.ends for limit in self._limits)
        self._timer = self._loop.call_later(step, self._sweep) if pending else None
