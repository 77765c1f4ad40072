"""Connections to the Redis the settings name."""

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.settings import Settings, SettingsError

CLIENT_NAME = "sse-gateway"


class _Cancellable(AbstractConnection):
    """Times its writes without asyncio.wait_for, as redis-py does.

    Before Python 3.12 wait_for loses a cancellation that comes as the write completes (bpo-37658): the task goes on,
    and whoever has cancelled it waits forever.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        limit, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            raise RedisTimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = limit


class _CancellableTcp(_Cancellable, Connection):
    pass


class _CancellableTls(_Cancellable, SSLConnection):
    pass


class _CancellableUnix(_Cancellable, UnixDomainSocketConnection):
    pass


_CLASSES: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _CancellableTcp,
    SSLConnection: _CancellableTls,
    UnixDomainSocketConnection: _CancellableUnix,
}


class _Forgetful(AbstractConnection):
    """Raises Redis' errors so that they hold nothing.

    In redis-py (8.0, `AbstractConnection.read_response`) the frame that raises an error holds it, and the error holds
    that frame and all that waited for the answer: a replay under way stayed until the garbage collector came by.
    """

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            raise error.with_traceback(None) from None


_FOR_COMMANDS = {base: type(f"_Forgetful{base.__name__}", (_Forgetful, ours), {}) for base, ours in _CLASSES.items()}
"""Not for what is only listened to, where it would cost a little for every message."""


def connection_pool(settings: Settings, max_connections: int, socket_timeout: float | None) -> ConnectionPool:
    """A pool for the Redis at `redis_url`.

    Nothing is retried in it: a repeated PUBLISH would be heard twice, and reconnecting is the owner's work.
    RESP2, because redis-py formats every push message of RESP3 for a debug line nobody reads.

    Args:
        settings: where Redis is.
        max_connections: limit of the pool.
        socket_timeout: seconds one read or write may take; None for no limit, as where messages are listened to.

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
            driver_info=None,  # else CLIENT SETINFO, which Redis has since 7.2
            socket_timeout=socket_timeout,
            socket_connect_timeout=settings.redis_connect_timeout,
            retry=Retry(NoBackoff(), 0),
            **({} if settings.redis_url.startswith("unix:") else {"socket_keepalive": True}),
        )
        classes = _CLASSES if socket_timeout is None else _FOR_COMMANDS
        pool.connection_class = classes[pool.connection_class]
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


async def disconnect_idle(pool: ConnectionPool) -> None:
    """Have whatever comes next go over new connections.

    The pool's own `disconnect` waits until each is closed. Whoever takes one out of the pool meanwhile loses a
    command, and does not know whether Redis has had it.
    """
    for connection in list(pool._available_connections):
        await connection.disconnect(nowait=True)


def without_password(url: str) -> str:
    """The URL as it may stand in a log: no password, and no options, some of which are passwords too."""
    parts = urlsplit(url)
    credentials, at, place = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{colon and ':***'}{at}{place}", query=""))
