"""PUBLISH."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.broker.client import connection_pool
from gateway.broker.durable import Durable
from gateway.fanout.contracts import PublishFailed
from gateway.settings import Settings

_CONNECTIONS = 8


class RedisPublisher:
    """Publishes messages as `redis-cli PUBLISH` does, under the channel prefix of the settings."""

    def __init__(self, settings: Settings, durable: Durable) -> None:
        self._durable = durable
        self._prefix = settings.channel_prefix
        self._redis = Redis(connection_pool=connection_pool(settings, _CONNECTIONS, settings.redis_connect_timeout))

    async def publish(self, channel: str, payload: bytes) -> int:
        try:
            return int(await self._redis.publish(self._prefix + channel, payload))
        except (RedisError, OSError) as error:
            raise PublishFailed(str(error) or type(error).__name__) from error

    async def publish_durable(self, channel: str, payload: bytes) -> str:
        return await self._durable.publish(channel, payload)

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
