"""Everything a worker needs of Redis, wired."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.broker.client import connection_pool
from gateway.broker.clock import ALIVE, TickClock, tick_channel
from gateway.broker.ends import RedisEnds
from gateway.broker.functions import Functions
from gateway.broker.library import Library
from gateway.broker.link import Link
from gateway.broker.past import PastOfOthers
from gateway.broker.peers import Peers
from gateway.broker.publisher import RedisPublisher
from gateway.broker.redis_history import RedisHistory
from gateway.broker.redis_limits import RedisLimits
from gateway.broker.revocations import Revocations
from gateway.broker.signature import Signer
from gateway.broker.tickets import RedisTickets
from gateway.broker.topics import WantedTopics
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import NotCounted, Receiver
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_COMMAND_CONNECTIONS = 16
_INSTALL_SECONDS = 10.0
"""FUNCTION FLUSH, and a Redis that took over without the functions, are noticed within this time."""
_LAST_TICK_SECONDS = 1.0
_DOUBT_SECONDS = 1.0


class Broker:
    """One worker's.

    Args:
        settings: where Redis is.
        metrics: where everything is counted.
        clock: seconds, monotonic.

    Raises:
        SettingsError: the settings name a Redis in an impossible way.
    """

    def __init__(self, settings: Settings, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._settings = settings
        prefix = settings.channel_prefix.encode()
        pool = connection_pool(settings, _COMMAND_CONNECTIONS, settings.redis_connect_timeout)
        database = self._database = int(pool.connection_kwargs.get("db", 0))
        self._metrics = metrics
        self._now = clock
        self._durable_channels = DurableChannels(settings.durable_channels)
        self._commands = Redis(connection_pool=pool)
        self.library = Library(self._commands, settings)
        self._signer = Signer(clock)
        self._signer.on_doubt = self._doubt
        self._doubted_at = -math.inf
        self._functions = Functions(self._commands, self.library, self._signer, settings.secret)
        self._limits = RedisLimits(self._commands, settings)
        self.revocations = Revocations(self._commands, settings, database)
        self.ends = RedisEnds(self.library, settings.channel_prefix)
        self.tickets = RedisTickets(self._commands, settings, clock)
        self.publisher = RedisPublisher(self._commands, self.library, settings.channel_prefix)
        self.history = History(settings, clock)
        self.listening = Listening(self.history)
        self.topics = WantedTopics(
            self.listening,
            self.history,
            prefix,
            settings.max_channels,
            settings.linger,
            clock,
            settings.max_patterns,
        )
        self.peers = Peers(self._commands, self._signer, self.listening, self.topics, prefix, database, metrics)
        redis_history = RedisHistory(settings, self.topics, self.library, self._durable_channels, metrics)
        self.past = PastOfOthers(self.listening, self.peers, redis_history, self._durable_channels)
        self.clock = TickClock(
            self.library,
            self._commands,
            self.listening,
            tick_channel(database),
            self.peers.own,
            settings.canary_interval,
            metrics,
            self._open_uncounted,
        )
        self._look = asyncio.Event()
        self._link: Link | None = None

    def connect(self, receiver: Receiver, revocable: bool = False) -> Link:
        """The link; it is to be run.

        Args:
            receiver: gets the messages.
            revocable: there are grants, which may be revoked.
        """
        link = self._link = Link(
            self._settings,
            self.topics,
            self.listening,
            self.history,
            self.clock,
            self._commands,
            self._functions,
            self._signer,
            receiver,
            self._durable_channels,
            self._database,
            self._metrics,
            self._now,
        )
        self.tickets.is_away = lambda: link.problem is not None
        link.control(self.peers.everyone, partial(self.peers.received, self.peers.everyone))
        link.control(self.peers.own, self._own_came)
        if revocable:
            link.control(self.revocations.channel, self.revocations.told)
            link.on_hearing.append(self.revocations.read)
        link.on_first_tick.append(self.peers.greet)
        # The connection may lead to another server: look now.
        link.on_first_tick += [self._limits.connected, self._look.set]
        link.on_lost.append(self.peers.lost)
        return link

    async def keep_functions(self) -> None:
        """Keep `FCALL gateway_publish` working, know the secret, and look at Redis' limits, forever."""
        while True:
            try:
                await self._functions.install()
                await self._limits.check()
            except (RedisError, OSError) as error:
                logger.debug("the functions could not be looked after: %s", error)
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INSTALL_SECONDS):
                    await self._look.wait()

    async def hand_over(self) -> None:
        """Have other workers take over what only this one has heard."""
        if self.listening.era is not None:
            await self.peers.leave(self._settings.handover_timeout)

    async def finish_answers(self) -> None:
        """Answer every question that was asked before now."""
        try:
            async with asyncio.timeout(_LAST_TICK_SECONDS):
                if self.listening.era is not None:
                    await self.clock.verify()
                    await self.peers.answered()
        except (NotCounted, TimeoutError):
            logger.debug("left without a last tick")

    async def close(self) -> None:
        """Close all connections."""
        if self._link is not None:
            await self._link.close()
        await self._commands.aclose()
        await self._commands.connection_pool.disconnect()

    def _doubt(self) -> None:
        """Something isn't signed. Look whether the secret is another now, but not for each of many forgeries."""
        if self._now() > self._doubted_at + _DOUBT_SECONDS:
            self._doubted_at = self._now()
            self._look.set()

    def _own_came(self, payload: bytes) -> None:
        if payload == ALIVE:
            self.clock.heard()
        else:
            self.peers.received(self.peers.own, payload)

    def _open_uncounted(self, topics: Sequence[Topic]) -> None:
        if self._link is not None:
            self._link.open_uncounted(topics)
