"""How much heavy work is done at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.fanout.turned_away import TurnedAway


class Gate:
    """Lets so many in at once, and so many wait.

    Args:
        at_once: who may be inside.
        waiting: who may wait in front of it.
        patience: for how long, in seconds.

    Attributes:
        inside: how many are.
        waiting: how many wait.
    """

    def __init__(self, at_once: int, waiting: int, patience: float) -> None:
        self._semaphore = asyncio.Semaphore(at_once)
        self._most_waiting = waiting
        self._patience = patience
        self.inside = 0
        self.waiting = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Be inside.

        Raises:
            TurnedAway: too many wait already, or it takes too long.
        """
        if self._semaphore.locked() and self.waiting >= self._most_waiting:
            raise TurnedAway("busy")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._semaphore.acquire()
        except TimeoutError:
            raise TurnedAway("busy") from None
        finally:
            self.waiting -= 1
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._semaphore.release()
