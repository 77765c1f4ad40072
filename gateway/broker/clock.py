"""Asking Redis for ticks: when something has to open, when somebody has to know, and when it has been silent."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from gateway.broker.client import disconnect_idle
from gateway.broker.library import BEGINNING, Library, Place
from gateway.memory.listening import Listening, ServerChanged
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import NotCounted

logger = logging.getLogger(__name__)

SPACING_MS = 20
"""Least time between two ticks. With 200 workers one costs Redis about 0.9 ms."""
PATIENCE = 3
"""After so many intervals without an expected answer the connection counts as lost."""
ALIVE = b"alive"
"""What a worker sends itself while Redis refuses to count."""
_RETRY = 0.2
"""Seconds before a command that failed is sent again."""


def tick_channel(database: int) -> bytes:
    """On which Redis publishes a database's ticks: databases share Pub/Sub, and all gateways on one share its clock,
    whatever their prefix."""
    return b"gateway.tick.%d" % database


class TickClock:
    """Requests ticks for as long as a connection lives.

    Args:
        library: issues them.
        commands: a connection pool for commands.
        listening: what this worker has heard.
        channel: on which ticks are published.
        own: channel of this worker, for signs of life while Redis refuses to count.
        interval: seconds without a tick after which one is requested; 0: only when something needs one.
        metrics: where the delay of a tick is noted.
        opened: told, as long as Redis refuses to count, that it delivers, and which topics open without positions.

    Attributes:
        refusal: why Redis refuses to count; empty while it counts.
        deaf: why ticks can't be heard on this connection; empty if they can.
    """

    def __init__(
        self,
        library: Library,
        commands: Redis,
        listening: Listening,
        channel: bytes,
        own: bytes,
        interval: float,
        metrics: Metrics,
        opened: Callable[[Sequence[Topic]], None],
    ) -> None:
        self.refusal = ""
        self.deaf = ""
        self._library = library
        self._commands = commands
        self._listening = listening
        self._channel = channel.decode()
        self._own = own
        self._interval = interval
        self._metrics = metrics
        self._opened = opened
        self._wanted = asyncio.Event()
        self._heard = asyncio.Event()
        self._verifying: list[asyncio.Future[None]] = []

    async def newest(self) -> tuple[int, int]:
        """Generation and number of the newest tick that Redis has issued."""
        while True:
            try:
                return await self._library.newest()
            except (RedisError, OSError) as error:
                logger.debug("the newest tick is not known: %s", error)
                await asyncio.sleep(_RETRY)

    def need(self) -> None:
        """Something is waiting for a tick."""
        self._wanted.set()

    def heard(self) -> None:
        """A tick has been heard, or another sign of life that was asked for."""
        self._heard.set()

    async def verify(self, elsewhere: bool = False) -> None:
        if elsewhere:
            await disconnect_idle(self._commands.connection_pool)
        future = asyncio.get_running_loop().create_future()
        self._verifying.append(future)
        self._wanted.set()
        await future

    def lost(self) -> None:
        """The connection is lost; who waits for a tick waits for one on the next."""
        self._heard.set()

    async def run(self, ping: Callable[[], Awaitable[object]]) -> None:
        """Request ticks until the connection is lost.

        Args:
            ping: sends PING on the connection that listens; its answer is a sign of life, too.

        Raises:
            ServerChanged: commands reach another server than the one that is listened to.
            ConnectionError: what was requested hasn't come for too long.
        """
        self._wanted.set()
        while True:
            await self._until_needed()
            self._wanted.clear()
            # Requested from here on; those who come later wait for the next.
            verifying, self._verifying = self._verifying, []
            try:
                await self._request(verifying, ping)
            except BaseException:
                self._verifying += [future for future in verifying if not future.done()]
                raise

    async def _until_needed(self) -> None:
        era = self._listening.era
        while not self._wanted.is_set() and not self._listening.waiting and not self._verifying:
            try:
                # With jitter, so that of many workers only some ask.
                delay = self._interval * random.uniform(1.0, 1.2) if self._interval else None
                async with asyncio.timeout(delay):
                    await self._wanted.wait()
            except TimeoutError:
                if era == self._listening.era:
                    return
                era = self._listening.era

    async def _request(self, verifying: list[asyncio.Future[None]], ping: Callable[[], Awaitable[object]]) -> None:
        listening = self._listening
        asked: Place | None = None
        while True:
            self._heard.clear()
            era = listening.era
            force = era is None or any(not future.done() for future in verifying)
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                if self.deaf:
                    raise ResponseError(self.deaf)
                seen = asked or (BEGINNING if force or era is None else Place(*era))
                reply = await self._library.tick(self._channel, seen, SPACING_MS)
            except ResponseError as error:
                await self._refused(error, verifying, ping)
                return
            except (RedisError, OSError) as error:
                # The listening connection tells whether Redis is away; this one may only be full.
                logger.debug("no tick could be requested: %s", error)
                await asyncio.sleep(_RETRY)
                continue
            if self.refusal:
                logger.info("Redis counts again")
                self.refusal = ""
            if reply.wait_ms:
                # Whoever issues the next tick does so after this request. If each worker insisted on one of its own,
                # they would wait for each other: 200 of them for four seconds.
                asked = Place(reply.generation, reply.number)
                await asyncio.sleep(reply.wait_ms / 1000)
                continue
            if listening.era is not None and reply.generation != listening.era[0]:
                raise ServerChanged("commands reach another server than the one that is listened to")
            await self._until_heard(reply.number)
            self._metrics.lag = loop.time() - began
            for future in verifying:
                if not future.done():
                    future.set_result(None)
            return

    async def _until_heard(self, number: int) -> None:
        listening = self._listening
        try:
            waited = 0
            while listening.era is None or listening.era[1] < number:
                self._heard.clear()
                waited = await self._wait_on(waited)
        except TimeoutError:
            raise ConnectionError("a tick that Redis issued has not come") from None

    async def _wait_on(self, waited: int = 0) -> int:
        """Wait until something is heard, or for an interval more.

        Args:
            waited: intervals so far.

        Returns:
            Intervals so far.

        Raises:
            TimeoutError: it was waited long enough.
        """
        interval = self._interval or 1.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(interval):
                await self._heard.wait()
        except TimeoutError:
            if loop.time() - began < 2 * interval:  # else this process stood still, and what came is still to be read
                waited += 1
                if waited == PATIENCE:
                    raise
        return waited

    async def _refused(
        self, error: ResponseError, verifying: list[asyncio.Future[None]], ping: Callable[[], Awaitable[object]]
    ) -> None:
        """Redis delivers, but doesn't count: a message to this worker itself shows that it does."""
        if not self.refusal:
            logger.error("Redis refuses to count (%s): new streams get no positions until it does", error)
        self.refusal = str(error)
        if isinstance(error, ReadOnlyError):  # redis-py has taken the word READONLY from the text
            raise ServerChanged("this server is a replica now")
        for future in verifying:
            if not future.done():
                future.set_exception(NotCounted(self.refusal))
        self._heard.clear()
        try:
            if await self._ask_for_a_sign(ping):
                waited = 0
                while not self._heard.is_set():
                    waited = await self._wait_on(waited)
                self._opened(self._listening.open_uncounted())  # even none: the worker is ready from here on
        except TimeoutError:
            raise ConnectionError("Redis is silent") from None
        except (RedisError, OSError) as failure:
            logger.debug("no sign of life could be sent: %s", failure)
        await asyncio.sleep(_RETRY if self._listening.waiting else self._interval or 1.0)

    async def _ask_for_a_sign(self, ping: Callable[[], Awaitable[object]]) -> bool:
        try:
            return bool(await self._commands.publish(self._own, ALIVE))
        except NoPermissionError:  # this user may not use the gateway's own channels
            await ping()
            return True
