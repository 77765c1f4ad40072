"""PUBLISH."""

from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.broker.client import connection_pool
from gateway.broker.functions import Functions
from gateway.broker.library import Library
from gateway.broker.signature import Signer
from gateway.memory.place import format_place, topic_keys
from gateway.memory.position import Position
from gateway.ports import PublishFailed
from gateway.settings import Settings

_CONNECTIONS = 2


class RedisPublisher:
    """Publishes messages as `redis-cli PUBLISH` does.

    Args:
        commands: a connection pool for commands.
        library: keeps durable messages.
        prefix: put before every channel name in Redis.
        functions: find the secret, where no worker has found it before.
    """

    def __init__(self, commands: Redis, library: Library, prefix: str, functions: Functions | None = None) -> None:
        self._commands = commands
        self._library = library
        self._prefix = prefix
        self._functions = functions

    async def publish(self, channel: str, payload: bytes) -> int:
        try:
            return int(await self._commands.publish(self._prefix + channel, payload))
        except (RedisError, OSError) as error:
            raise PublishFailed(str(error) or type(error).__name__) from error

    async def publish_durable(self, channel: str, payload: bytes) -> str:
        name = self._prefix + channel
        return await self._counted(
            channel, lambda: self._library.call(name, payload), lambda: self._library.publish(name, payload)
        )

    async def end(self, channel: str) -> str:
        name = self._prefix + channel
        return await self._counted(channel, lambda: self._library.call_end(name), lambda: self._library.end(name))

    async def _counted(
        self, channel: str, call: Callable[[], Awaitable[str | None]], sign: Callable[[], Awaitable[str]]
    ) -> str:
        """The id of a message that Redis counts.

        Args:
            channel: on which it is published.
            call: publishes it as FCALL does.
            sign: likewise, with the secret.
        """
        try:
            answer = None
            if self._functions is not None and (answer := await call()) is None:
                await self._functions.install()
                self._functions.adopt()
                self._functions = None
            if answer is None:
                answer = await sign()
        except (RedisError, OSError) as error:
            raise PublishFailed(str(error) or type(error).__name__) from error
        generation, tick, number = map(int, answer.split("."))
        key, _ = topic_keys(channel, False)
        return format_place((generation, tick), [(key, Position(generation, tick, number))])

    async def close(self) -> None:
        """Close the connections."""
        await self._commands.aclose()
        await self._commands.connection_pool.disconnect()


async def publisher(settings: Settings) -> RedisPublisher:
    """A publisher with connections of its own.

    Raises:
        SettingsError: the settings name a Redis in an impossible way.
    """
    commands = Redis(connection_pool=connection_pool(settings, _CONNECTIONS, settings.redis_connect_timeout))
    library = Library(commands, settings)
    functions = Functions(commands, library, Signer(), settings.secret, replaces=False)
    return RedisPublisher(commands, library, settings.channel_prefix, functions)
