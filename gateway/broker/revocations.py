"""Whose grants don't count any more: kept in Redis, known to every worker."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from gateway.broker.client import connection_pool
from gateway.ports import PublishFailed
from gateway.settings import Settings

logger = logging.getLogger(__name__)

# Not `gateway.…`: whoever may publish durable messages may write the keys that begin so.
_KEY = "gateway:revoked"
_OVERLAP = 10.0
"""Seconds by which times of different revocations may be out of order: each asks Redis for it, and then writes."""
_PAUSE = 0.1
"""Seconds between two readings. Anybody who may publish can make workers read."""
_RETRY = 0.5
_CONNECTIONS = 1


class Revocations:
    """The subjects, each with the time up to which grants don't count (seconds since 1970, by Redis' clock).

    A message on `channel` says that there is something new, and nothing else: what it is stands in the key, and not
    everybody who may publish may write that.

    Args:
        commands: a connection pool for commands.
        settings: the prefix, and how long a revocation is kept.
        database: number of Redis' database, because all of them share Pub/Sub.

    Attributes:
        channel: where workers are told that there is something new.
        on_revoked: told of what is new.
    """

    def __init__(self, commands: Redis, settings: Settings, database: int) -> None:
        self._commands = commands
        self._key = settings.channel_prefix + _KEY
        self._age = settings.revocation_age
        self.channel = f"{settings.channel_prefix}gateway.revoked.{database}".encode()
        self.on_revoked: Callable[[Sequence[tuple[str, float]]], None] = lambda _: None
        self._read_up_to = 0.0
        self._known: dict[str, float] = {}
        self._told = asyncio.Event()

    async def revoke(self, sub: str) -> None:
        """From now on no grant counts that the subject has had before.

        Raises:
            PublishFailed: Redis can't be reached or refuses.
        """
        try:
            seconds, microseconds = await self._commands.time()
            now = seconds + microseconds / 1e6
            async with self._commands.pipeline(transaction=True) as transaction:
                transaction.zadd(self._key, {sub: now}, gt=True)
                transaction.zremrangebyscore(self._key, "-inf", now - self._age)
                transaction.publish(self.channel, b"")
                await transaction.execute()
        except (RedisError, OSError) as error:
            raise PublishFailed(str(error) or type(error).__name__) from error

    def told(self, _: bytes) -> None:
        """There is something new."""
        self._told.set()

    async def read(self) -> None:
        """Read what is new, also if Redis can't be asked for a moment."""
        while True:
            try:
                await self._read()
                return
            except (NoPermissionError, ResponseError) as error:
                logger.error("revocations can't be read, so no grant can be revoked: %s", error)
                return
            except (RedisError, OSError) as error:
                logger.debug("revocations could not be read: %s", error)
            await asyncio.sleep(_RETRY)

    async def run(self) -> None:
        """Read what is new whenever this worker is told, forever."""
        while True:
            await self._told.wait()
            self._told.clear()
            await self.read()
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Close the connections."""
        await self._commands.aclose()
        await self._commands.connection_pool.disconnect()

    async def _read(self) -> None:
        since = self._read_up_to - _OVERLAP
        found: Any = await self._commands.zrangebyscore(self._key, since, "+inf", withscores=True)
        new: list[tuple[str, float]] = []
        for member, at in found:
            sub = member.decode(errors="replace")
            if self._known.get(sub) != at:
                self._known[sub] = at
                new.append((sub, at))
            self._read_up_to = max(self._read_up_to, at)
        oldest = self._read_up_to - self._age
        for sub in [sub for sub, at in self._known.items() if at < oldest]:
            del self._known[sub]
        if new:
            self.on_revoked(new)

    def is_revoked(self, sub: str | None, issued_at: float | None) -> bool:
        """Whether a grant doesn't count any more.

        Args:
            sub: whose it is; nobody's can't be revoked.
            issued_at: when it was given (seconds since 1970); None: that isn't known, so it may have been before.
        """
        at = self._known.get(sub) if sub is not None else None
        return at is not None and (issued_at is None or issued_at <= at)


def revocations(settings: Settings) -> Revocations:
    """Revocations with a connection of their own, to add one.

    Raises:
        SettingsError: the settings name a Redis in an impossible way.
    """
    pool = connection_pool(settings, _CONNECTIONS, settings.redis_connect_timeout)
    return Revocations(Redis(connection_pool=pool), settings, int(pool.connection_kwargs.get("db", 0)))
