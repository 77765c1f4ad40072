"""Durable publishing and its history, in Redis."""

import asyncio
import logging
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.broker.client import connection_pool, glob_escape
from gateway.fanout.contracts import PublishFailed
from gateway.fanout.event import Event, Undeliverable, durable_payload, parse
from gateway.fanout.ids import DurableId, parse_durable
from gateway.fanout.names import BadName, check_channel
from gateway.fanout.past import Past, PastUnavailable
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_CONNECTIONS = 4
_CHANNELS_AT_A_TIME = 100
"""Redis does nothing else while a script runs."""


class Durable:
    """The functions of durable.lua, called as scripts: those work on every Redis from 6.2 on.

    Where Redis has Functions (7.0), the same text is loaded as one: `redis-cli FCALL gateway_publish 1 news hello`.
    """

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.channel_prefix
        self._limit = settings.replay_events
        self._channel_bytes = settings.replay_bytes
        self._max_channel_bytes = settings.max_channel_bytes
        self._max_payload_bytes = settings.max_payload_bytes
        self._max_id_bytes = settings.max_id_bytes
        self._redis = Redis(connection_pool=connection_pool(settings, _CONNECTIONS, settings.redis_connect_timeout))
        source = files(__package__).joinpath("durable.lua").read_text()
        source = source.replace("@EVENTS@", str(settings.durable_events))
        self._source = source.replace("@AGE_MS@", str(int(settings.durable_age * 1000)))
        self._publish = self._script("publish")
        self._history = self._script("history")
        self._check = self._script("check")
        self._mixed = self._script("mixed")
        self._tasks: set[asyncio.Task[None]] = set()

    def _script(self, name: str) -> Any:
        return self._redis.register_script(f"{self._source}\nreturn {name}(KEYS, ARGV)")

    async def install(self) -> bool:
        """Load the functions for FCALL.

        Returns:
            False where Redis has none, or doesn't let us.
        """
        library = (
            f"#!lua name=gateway\n{self._source}\n"
            "redis.register_function('gateway_publish', publish)\n"
            "redis.register_function('gateway_history', history)\n"
        )
        try:
            await self._redis.function_load(library, replace=True)
        except ResponseError as error:
            logger.info("no FCALL gateway_publish: Redis answered %r", str(error))
            return False
        return True

    async def publish(self, channel: str, payload: bytes) -> str:
        """Publish a message that is kept.

        Returns:
            Its id.

        Raises:
            PublishFailed: Redis can't be reached or refused.
        """
        try:
            id_: bytes = await self._publish(keys=[self._prefix + channel], args=[payload])
        except (RedisError, OSError) as error:
            raise PublishFailed(str(error) or type(error).__name__) from error
        return id_.decode()

    async def after(self, channels: list[str], id_: DurableId) -> dict[str, Past]:
        return await self._read(channels, "after", str(id_), self._limit)

    async def since(self, channels: list[str], time: DurableId, known: DurableId) -> dict[str, Past]:
        """What came after a point of time, given as an id that need not be one.

        Args:
            channels: of which.
            time: after this.
            known: the newest id seen; if history has begun anew since, something is lost.

        Raises:
            PastUnavailable: Redis can't be reached or refused.
        """
        return await self._read(channels, "since", str(time), self._limit, str(known))

    def mark_mixed(self, channel: str) -> None:
        """Note in Redis that a channel carries plain messages beside durable ones; returns at once."""

        async def mark() -> None:
            try:
                await self._mixed(keys=[self._prefix + channel], args=[])
            except (RedisError, OSError) as error:
                logger.warning("could not note that %r carries plain messages too: %s", channel, error)

        task = asyncio.create_task(mark())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def last(self, channels: list[str], count: int) -> dict[str, Past]:
        return await self._read(channels, "last", "", min(count, self._limit))

    async def check(self, newest: DurableId) -> DurableId:
        """Tell Redis the newest id seen, so that it notices if it has lost some.

        Returns:
            Its clock now.

        Raises:
            PastUnavailable: Redis can't be reached or refused.
        """
        try:
            return _id(await self._check(keys=[], args=[str(newest)]))
        except (RedisError, OSError) as error:
            raise PastUnavailable(str(error) or type(error).__name__) from error

    async def channels(self, limit: int) -> list[str]:
        """Channels somebody listens to now, at most `limit`, without the gateway's own.

        Raises:
            redis.exceptions.RedisError: Redis can't be reached or refused.
        """
        if not limit:
            return []
        pattern = glob_escape(self._prefix.encode()) + b"*"
        found = []
        for name in cast("list[bytes]", await self._redis.pubsub_channels(pattern)):
            try:
                channel = check_channel(name.decode()[len(self._prefix) :], self._max_channel_bytes)
            except (UnicodeDecodeError, BadName):
                continue
            found.append(channel)
            if len(found) == limit:
                break
        return found

    async def listeners(self, channels: Sequence[str]) -> list[int]:
        """How many connections listen to each.

        Raises:
            redis.exceptions.RedisError: Redis can't be reached or refused.
        """
        names = [self._prefix + channel for channel in channels]
        return [count for _, count in await self._redis.pubsub_numsub(*names)]

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _read(self, channels: Sequence[str], mode: str, after: str, limit: int, *more: str) -> dict[str, Past]:
        pasts: dict[str, Past] = {}
        waiting = list(channels)
        while waiting:
            asked = waiting[:_CHANNELS_AT_A_TIME]
            names = [self._prefix + channel for channel in asked]
            try:
                answers = await self._history(keys=names, args=[mode, after, limit, self._channel_bytes, *more])
            except (RedisError, OSError) as error:
                logger.warning("durable history could not be read: %s", error)
                raise PastUnavailable(str(error) or type(error).__name__) from error
            for channel, (gap, pure, found) in zip(asked, answers, strict=False):
                pasts[channel] = Past(self._events(found), gap.decode() or None, bool(pure))
            waiting = waiting[len(answers) :]
        return pasts

    def _events(self, found: Sequence[bytes]) -> list[Event]:
        events = []
        for id_, message in zip(found[::2], found[1::2], strict=True):
            try:
                events.append(parse(durable_payload(_id(id_), message), self._max_payload_bytes, self._max_id_bytes))
            except Undeliverable:  # refused and counted when it was live
                continue
        events.reverse()
        return events


def _id(text: bytes) -> DurableId:
    return parse_durable(str(text, "ascii")) or DurableId(0, 0)
