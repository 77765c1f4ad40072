"""Whether a Redis answers."""

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.broker.client import connection_pool, without_password
from gateway.settings import Settings, SettingsError


async def answers(settings: Settings) -> bool:
    """Whether the Redis of the settings can be reached.

    Raises:
        SettingsError: it can, and refuses us.
    """
    client = Redis(connection_pool=connection_pool(settings, 1, settings.redis_connect_timeout))
    try:
        await client.ping()
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        if type(error) is not RedisConnectionError and isinstance(error, RedisConnectionError):
            raise _refused(settings, error) from None  # AuthenticationError is a ConnectionError too
        return False
    except InvalidResponse:  # somebody listens there who is no Redis
        return False
    except RedisError as error:
        raise _refused(settings, error) from None
    finally:
        await client.connection_pool.disconnect()
    return True


def _refused(settings: Settings, error: RedisError) -> SettingsError:
    return SettingsError(
        f"redis_url (--redis-url, GATEWAY_REDIS_URL): Redis at {without_password(settings.redis_url)} "
        f"refuses: {error}."
    )
