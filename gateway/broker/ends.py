"""Which channels are over, as Redis knows it."""

import logging
from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from gateway.broker.library import Library
from gateway.ports import StoreFailed

logger = logging.getLogger(__name__)


class RedisEnds:
    """Asks Redis.

    Args:
        library: the functions in Redis.
        prefix: put before every channel name in Redis.
    """

    def __init__(self, library: Library, prefix: str) -> None:
        self._library = library
        self._prefix = prefix
        self._is_refused = False

    async def over(self, channels: Sequence[str]) -> list[bool]:
        """Whether each of these channels is over.

        Raises:
            StoreFailed: Redis can't be reached.
        """
        try:
            return await self._library.ended([self._prefix + channel for channel in channels])
        except ResponseError as error:
            # Streams must not wait for what this user may never be told.
            if not self._is_refused:
                logger.error("whether channels are over can't be read, so their streams stay open: %s", error)
                self._is_refused = True
            return [False] * len(channels)
        except (RedisError, OSError) as error:
            raise StoreFailed(str(error) or type(error).__name__) from error
