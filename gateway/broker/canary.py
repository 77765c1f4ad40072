"""A message a worker sends to itself through Redis, again and again.

A connection can look healthy and deliver nothing: a firewall dropped its state, a switch its link, Redis hangs. Only
something that has to arrive can tell. What comes back also says how late everything else is, and, because Redis keeps
the order, up to which durable id everything was heard.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from gateway.broker.client import connection_pool
from gateway.fanout.history import History
from gateway.fanout.ids import DurableId, parse_durable
from gateway.metrics import Metrics
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_PATIENCE = 3
"""So many intervals of silence are too many."""
_NEVER = DurableId(0, 0)
_BEST_OF = 16
"""Of so many measurements of Redis' time the quickest counts: its answer was the least delayed."""


class _Sent(NamedTuple):
    time: float
    redis_ms: int


class Canary:
    """One worker's.

    Attributes:
        channel: its name in Redis.
        enabled: false if it is off, or Redis forbids it.
    """

    def __init__(self, settings: Settings, history: History, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.channel = f"{settings.channel_prefix}gateway.canary.{uuid4().hex}".encode()
        self.enabled = settings.canary_interval > 0
        self._interval = settings.canary_interval
        self._history = history
        self._metrics = metrics
        self._clock = clock
        self._redis = Redis(connection_pool=connection_pool(settings, 2, settings.redis_connect_timeout))
        self._heard = 0.0
        self._sent: dict[bytes, _Sent] = {}
        self._count = 0
        self._barriers: dict[bytes, asyncio.Future[bool]] = {}
        self._offsets: list[tuple[float, int]] = []

    def heard(self) -> None:
        """Anything has come from Redis."""
        self._heard = self._clock()

    def echo(self, message: bytes, complete: bool) -> None:
        """The canary has come back.

        Args:
            message: what was sent.
            complete: everything that Redis sent before it has been delivered, too.
        """
        token, _, newest = message.partition(b" ")
        barrier = self._barriers.pop(token, None)
        if barrier is not None and not barrier.done():
            barrier.set_result(complete)
        sent = self._sent.pop(token, None)
        if sent is None:
            return
        self._metrics.lag = self._clock() - sent.time
        history = self._history
        history.clock = max(history.clock, parse_durable(newest.decode(errors="replace")) or _NEVER)
        if complete:
            # Redis put it behind all that was published before it asked for the time, in an earlier millisecond at
            # the latest.
            history.heard = max(history.heard, DurableId(sent.redis_ms - 1, 0))

    async def caught_up(self) -> bool:
        """Wait until everything is delivered that Redis had been given to publish before this was called.

        Returns:
            False if that can't be found out just now.
        """
        if not self.enabled:
            return False
        self._count += 1
        token = b"b%d" % self._count
        barrier = self._barriers[token] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_PATIENCE * self._interval):
                await self._redis.publish(self.channel, token)
                complete: bool = await barrier
                return complete
        except (RedisError, OSError):  # TimeoutError is one
            return False
        finally:
            self._barriers.pop(token, None)

    def forbidden(self) -> None:
        """Redis doesn't let us listen to it."""
        self.enabled = False
        logger.warning(
            "Redis does not allow to listen to or publish on %s (ACL); without it a connection that silently died is "
            "noticed late, and lost durable messages are told of instead of fetched",
            self.channel.decode(),
        )

    async def watch(self) -> None:
        """Send canaries for as long as the connection lives.

        Raises:
            redis.exceptions.ConnectionError: Redis has been silent for too long.
        """
        self.heard()
        sending: asyncio.Task[None] | None = None
        try:
            while self.enabled:
                if sending is None or sending.done():
                    sending = asyncio.create_task(self._send())
                planned = self._clock() + self._interval
                await asyncio.sleep(self._interval)
                if self._clock() > planned + self._interval:
                    # This process stood still, not Redis; what came meanwhile is still to be read.
                    self.heard()
                    continue
                silence = self._clock() - self._heard
                if silence > _PATIENCE * self._interval:
                    raise RedisConnectionError(f"silent for {silence:.1f} s, the connection is taken for dead")
        finally:
            if sending is not None:
                sending.cancel()

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _send(self) -> None:
        self._count += 1
        token = b"%d" % self._count
        try:
            began = time.time()
            (seconds, micros), newest = await self._ask()
            took = time.time() - began
            self._note_time(took, int((seconds + micros / 1e6 - began - took / 2) * 1000))
            self._sent = {token: _Sent(self._clock(), seconds * 1000 + micros // 1000)}
            await self._redis.publish(self.channel, token + b" " + (newest or b""))
        except NoPermissionError:
            self.forbidden()
        except ResponseError as error:
            logger.warning("the canary could not be sent: %s", error)
        except (RedisError, OSError):
            return  # Redis is away; the silence will tell

    async def _ask(self) -> tuple[tuple[int, int], bytes | None]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hget("gateway.clock", "last")
            answers = await pipeline.execute()
        return answers[0], answers[1]

    def _note_time(self, took: float, offset_ms: int) -> None:
        self._offsets = [*self._offsets[-_BEST_OF + 1 :], (took, offset_ms)]
        self._history.clock_offset_ms = min(self._offsets)[1]
