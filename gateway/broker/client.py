"""Connections to the Redis the settings name."""

from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.settings import Settings, SettingsError

CLIENT_NAME = "sse-gateway"


def connection_pool(settings: Settings, max_connections: int, socket_timeout: float | None) -> ConnectionPool:
    """A pool for the Redis at `redis_url`.

    Nothing is retried in it: a repeated PUBLISH would be heard twice, and reconnecting is the owner's work.
    RESP2, because redis-py formats every push message of RESP3 for a debug line nobody reads.

    Args:
        settings: where Redis is.
        max_connections: limit of the pool.
        socket_timeout: seconds one read or write may take; None for no limit.

    Raises:
        SettingsError: the URL holds an option redis-py doesn't know, or a value that can't be.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=max_connections,
            timeout=settings.redis_connect_timeout,  # for a free connection
            protocol=2,
            client_name=CLIENT_NAME,
            socket_timeout=socket_timeout,
            socket_connect_timeout=settings.redis_connect_timeout,
            retry=Retry(NoBackoff(), 0),
            **({} if settings.redis_url.startswith("unix:") else {"socket_keepalive": True}),
        )
        _ = new_connection(pool)  # finds unknown options; connects nowhere
        for option in ("protocol", "decode_responses"):
            # What stands in the URL goes over what is given here, and the reader of messages relies on both.
            if f"{option}=" in settings.redis_url:
                raise ValueError(f"the option {option} can't be set")
    except (ValueError, TypeError) as error:
        raise SettingsError(f"redis_url (--redis-url, GATEWAY_REDIS_URL): {error}.") from None
    return pool


def new_connection(pool: ConnectionPool) -> Connection:
    """A connection that is not connected yet and that the pool does not know."""
    connection: Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


def without_password(url: str) -> str:
    """The URL as it may stand in a log: no password, and no options, some of which are passwords too."""
    parts = urlsplit(url)
    credentials, at, place = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{colon and ':***'}{at}{place}", query=""))
