"""Tickets in Redis, where every worker finds them."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.ports import StoredTicket, StoreFailed
from gateway.settings import Settings
from gateway.throttle import Throttle

logger = logging.getLogger(__name__)

# Not `gateway.…`: whoever may publish durable messages may write the keys that begin so.
_KEY = "gateway:ticket:"
_AT_ONCE = 8
"""Questions to Redis under way at the same time: half of the connections, because anybody can make up tickets."""
_WAITING = 1000
"""Questions that wait for that; whoever comes then is told to come back."""
_LOG_PERIOD = 10.0
Answer = TypeVar("Answer")


class RedisTickets:
    """Two keys for each ticket: what it is for, and what was made of it. Both go by themselves.

    Redis sees names made from tickets, and no ticket: who reads its keys, its log of slow commands or its backups can
    open nothing with them.

    Args:
        commands: a connection pool for commands.
        settings: the prefix, and how long anybody waits.
        clock: seconds, monotonic.

    Attributes:
        is_away: whether it is known that Redis can't be asked just now.
    """

    def __init__(self, commands: Redis, settings: Settings, clock: Callable[[], float]) -> None:
        self._commands = commands
        self._prefix = settings.channel_prefix + _KEY
        self.is_away: Callable[[], bool] = lambda: False
        self._patience = settings.subscribe_timeout
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._log = Throttle(_LOG_PERIOD, clock)

    async def time(self) -> float:
        """Seconds since 1970, by the clock that dates revocations.

        Raises:
            StoreFailed: Redis can't be reached or refuses.
        """
        seconds, microseconds = await self._ask(lambda: self._commands.time())
        return float(seconds + microseconds / 1e6)

    async def keep(self, name: str, content: bytes, seconds: float) -> None:
        """Keep a new ticket for so long.

        Raises:
            StoreFailed: Redis can't be reached or refuses.
        """
        await self._ask(lambda: self._commands.set(self._ticket(name), content, px=_milliseconds(seconds)))

    async def find(self, name: str) -> StoredTicket:
        """What is kept under that name.

        Raises:
            StoreFailed: as `keep`.
        """
        kept, used = await self._ask(lambda: self._commands.mget(self._ticket(name), self._used(name)))
        return StoredTicket(kept, used)

    async def use(self, name: str, content: bytes, seconds: float) -> bool:
        """Keep for so long what is made of a ticket; whether nobody else has done so before.

        Raises:
            StoreFailed: as `keep`; it may have been kept all the same.
        """
        key = self._used(name)
        if await self._ask(lambda: self._commands.set(key, content, px=_milliseconds(seconds), nx=True)):
            with contextlib.suppress(StoreFailed):  # it goes by itself, a little later
                await self._ask(lambda: self._commands.delete(self._ticket(name)))
            return True
        # The same request may come twice: Redis had it, and the answer was lost.
        return (await self.find(name)).used == content

    async def _ask(self, command: Callable[[], Awaitable[Answer]]) -> Any:
        if self.is_away():
            raise StoreFailed("Redis can't be reached")
        if self._waiting >= _WAITING:
            raise StoreFailed("too many wait for an answer about tickets")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience), self._turn:
                return await command()
        except (RedisError, OSError) as error:  # TimeoutError is one of the latter
            what = str(error) or type(error).__name__
            if (suppressed := self._log.allow(type(error).__name__)) is not None:
                more = f" ({suppressed} more like this before)" if suppressed else ""
                logger.warning("a ticket can't be looked up or kept: %s%s", what, more)
            raise StoreFailed(what) from error
        finally:
            self._waiting -= 1

    def _ticket(self, name: str) -> str:
        # In braces: both keys of a ticket belong to the same slot of a cluster.
        return f"{self._prefix}{{{name}}}"

    def _used(self, name: str) -> str:
        return f"{self._prefix}{{{name}}}:used"


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
