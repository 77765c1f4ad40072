"""Fan-outs to streams of several topics, one after the other, a part of one in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from gateway.fanout.subscriber import Subscriber

Send: TypeAlias = Callable[[Sequence[Subscriber]], None]
"""Sends to some of the recipients. What it sends is decided when the fan-out is taken over, not when it is sent: by
then other messages have moved the positions that ids stand for."""
PART = 250
"""Writes in one turn, some two milliseconds. Beside them a turn of the loop is to cost little."""
_MOST_RECIPIENTS = 100_000
"""Of all fan-outs that wait, each in a list of its own: some megabytes. More are sent at once."""


class Turns:
    """One line for all of them.

    A stream of several topics must have their messages in the order in which they were published, for an event's id
    stands for all that came before it. So as long as one fan-out is under way, all others to such streams wait.

    Args:
        drained: called when none is left.
    """

    def __init__(self, drained: Callable[[], None]) -> None:
        self._drained = drained
        self._jobs: deque[tuple[list[Subscriber], Send]] = deque()
        self._place = 0
        self._recipients = 0
        self._scheduled = False

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return bool(self._jobs)

    def wants(self, recipients: int) -> bool:
        """Whether a fan-out is to be done here: it is large, or one before it is still under way."""
        return recipients > PART or bool(self._jobs)

    def add(self, recipients: Collection[Subscriber], send: Send) -> None:
        """Take a fan-out over."""
        self._jobs.append((list(recipients), send))
        self._recipients += len(recipients)
        if self._recipients > _MOST_RECIPIENTS:
            self.finish()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def finish(self) -> None:
        """Do the rest at once: a stream that ends must have everything that its id stands for."""
        while self._jobs:  # what was held back comes last
            self._work()

    def _turn(self) -> None:
        self._scheduled = False
        if self._jobs:
            self._work()
        if self._jobs:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _work(self) -> None:
        recipients, send = self._jobs[0]
        some = recipients[self._place : self._place + PART]
        self._place += PART
        if self._place >= len(recipients):
            self._jobs.popleft()
            self._recipients -= len(recipients)
            self._place = 0
        send(some)
        if not self._jobs:
            self._drained()
