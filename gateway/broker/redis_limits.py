"""Whether what Redis lets through, and lets wait, fits the messages of this gateway.

Redis disconnects a subscriber when too much waits for it (client-output-buffer-limit pubsub), and for a worker that
means a gap on all its channels. It refuses a message that is too large (proto-max-bulk-len), and closes the
publisher's connection.
"""

import logging
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from gateway.settings import Settings

logger = logging.getLogger(__name__)

BURST = 16
"""Messages of the largest size that must be able to wait for a worker while it does something else."""

LEAST_BULK = 8_388_608
"""Bytes. What one worker tells another of a channel's past is one message of up to 4 MiB, and a bit more as JSON."""

_ROOM = 4096
"""Bytes around a message: what marks it as durable."""

_MAY_ASK = "return (not redis.acl_check_cmd or redis.acl_check_cmd('CONFIG', 'GET', 'proto-max-bulk-len')) and 1 or 0"
"""Where Redis can tell (7.0): a command that is refused stands in its ACL LOG, after each connect of each worker."""


class RedisLimits:
    """Looks at both and says what doesn't fit.

    Args:
        redis: a client that doesn't decode responses.
        settings: how large a message may be.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._max_payload = settings.max_payload_bytes
        self._due = True
        self._said = ""

    def connected(self) -> None:
        """This may be another Redis, or have another configuration."""
        self._due = True

    async def check(self) -> None:
        """Warn once where they don't fit; say nothing where Redis doesn't tell them (ACL, a hosted Redis).

        Raises:
            redis.exceptions.RedisError: Redis can't be reached.
        """
        if not self._due:
            return
        try:
            if not await cast("Any", self._redis.eval(_MAY_ASK, 0)):
                raise NoPermissionError("this user may not CONFIG GET")
            waiting = _pubsub_limit(await self._get("client-output-buffer-limit"))
            largest = int(await self._get("proto-max-bulk-len"))
        except (ResponseError, KeyError, ValueError, IndexError) as error:
            logger.debug("Redis doesn't tell its limits: %r", error)
            self._due = False
            return
        self._due = False
        logger.debug("Redis' limits: %d bytes may wait for a subscriber, a message may have %d", waiting, largest)
        need_waiting, need_largest = BURST * self._max_payload, max(self._max_payload + _ROOM, LEAST_BULK)
        if largest < need_largest or 0 < waiting < need_waiting:
            self._say(
                logging.WARNING,
                f"Redis' limits don't fit max_payload_bytes={self._max_payload}. client-output-buffer-limit pubsub "
                f"is {waiting or 'unlimited'} and should be at least {need_waiting}, {BURST} messages: beyond it "
                "Redis disconnects this worker, and all its channels have a gap. "
                f"proto-max-bulk-len is {largest} and should be at least {need_largest}: what is larger is refused.",
            )
        elif 0 < waiting < largest:
            self._say(
                logging.INFO,
                f"One message of more than {waiting} bytes (client-output-buffer-limit pubsub) would disconnect all "
                f"workers from Redis, which takes up to {largest} (proto-max-bulk-len; {need_largest} would do).",
            )

    def _say(self, level: int, text: str) -> None:
        if text != self._said:
            self._said = text
            logger.log(level, "%s", text)

    async def _get(self, name: str) -> str:
        found = await cast("Any", self._redis.config_get(name))
        value = found[name]
        return value.decode() if isinstance(value, bytes) else str(value)


def _pubsub_limit(text: str) -> int:
    """Of "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60" the first of the last three."""
    words = text.split()
    return int(words[words.index("pubsub") + 1])
