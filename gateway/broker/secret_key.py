"""The secret in a key, where Redis has no Functions. Whoever may read keys can read it there."""

import logging
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.secret import NOTICES, Secret, dump_notice

logger = logging.getLogger(__name__)

KEY = "gateway.secret"
"""Holds the text and the serial, with a space in between; library.lua reads it there when it signs."""
_REPLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[3]) end
return 1
"""
_ATTEMPTS = 10
"""So many other workers may be faster."""


class SecretKey:
    """One database's.

    Args:
        redis: a client of the gateway's database that doesn't decode responses.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self) -> Secret:
        """The secret in force; empty if there is none.

        Raises:
            redis.exceptions.RedisError: Redis can't be reached, or refuses.
        """
        return _parse(await self._get())

    async def install(self, decide: Callable[[Secret], Secret]) -> tuple[Secret, bool]:
        """Put the right secret in force.

        Args:
            decide: which one, given the one in force.

        Returns:
            The one in force now, and whether that is the one decided on.

        Raises:
            redis.exceptions.RedisError: Redis can't be reached.
        """
        found = Secret()
        try:
            for _ in range(_ATTEMPTS):
                kept = await self._get()
                found = _parse(kept)
                secret = decide(found)
                if secret == found:
                    return secret, True
                notice = dump_notice(found.text, secret) if found.text else b""
                if await self._replace(kept, secret, notice):
                    return secret, True
        except ResponseError as error:
            # As long as Redis refuses that, it refuses to count as well, and there is nothing to be signed.
            logger.debug("the secret could not be kept: %s", error)
        return found if found.text else decide(found), False

    async def _get(self) -> bytes:
        return cast("bytes", await self._redis.get(KEY) or b"")

    async def _replace(self, kept: bytes, secret: Secret, notice: bytes) -> bool:
        arguments = [kept, b"%b %d" % secret, notice, NOTICES]
        return bool(await cast("Any", self._redis.eval(_REPLACE, 1, KEY, *arguments)))


def _parse(kept: bytes) -> Secret:
    text, _, serial = kept.partition(b" ")
    return Secret(text, int(serial) if serial.isdigit() else 0)
