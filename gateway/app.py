"""The only place where the parts are put together."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import BaseRoute, Route

from gateway import console
from gateway.broker.canary import Canary
from gateway.broker.durable import Durable
from gateway.broker.handover import Handover
from gateway.broker.publisher import RedisPublisher
from gateway.broker.pubsub import PubSub
from gateway.fanout.catch_up import CatchUp
from gateway.fanout.hub import Hub
from gateway.fanout.interest import Interest
from gateway.metrics import Metrics
from gateway.server.files import default_max_streams
from gateway.settings import Settings
from gateway.web.console_page import ConsolePage
from gateway.web.ops import Ops
from gateway.web.origins import Origins
from gateway.web.problem import Problem, on_error, on_http_exception, on_problem
from gateway.web.publish import Publish
from gateway.web.shortcut import Shortcut
from gateway.web.subscribe import Subscribe

logger = logging.getLogger(__name__)

_SWEEP_INTERVAL = 1.0


class Gateway:
    """One worker's parts, wired.

    Args:
        settings: its settings.
        redis_cli: how the console's examples call redis-cli.

    Raises:
        SettingsError: the settings name a Redis in a way that can't be.
    """

    def __init__(self, settings: Settings, redis_cli: str = "redis-cli") -> None:
        # The event loops' own clock (asyncio's and uvloop's are both monotonic); there is no loop yet to ask.
        clock = time.monotonic
        self.settings = settings
        self.metrics = Metrics()
        self.interest = Interest(settings.max_channels, settings.linger, clock)
        self.durable = Durable(settings)
        self.hub = Hub(
            settings,
            settings.max_streams or default_max_streams(),
            self.interest,
            self.metrics,
            clock,
            self.durable.mark_mixed,
        )
        self.canary = Canary(settings, self.hub.history, self.metrics, clock)
        self.handover = Handover(settings)
        self.pubsub = PubSub(
            settings, self.interest, self.hub, self.canary, self.handover, self.durable, self.metrics
        )
        self.publisher = RedisPublisher(settings, self.durable)
        self.catch_up = CatchUp(
            settings, self.hub.history, self.durable, self.pubsub, self.canary.caught_up, self.metrics, clock
        )
        self._origins = Origins(settings)
        self._subscribe = Subscribe(settings, self.hub, self.catch_up, self.metrics)
        self._redis_cli = redis_cli
        self.app = Starlette(
            routes=self._routes(),
            exception_handlers={Problem: on_problem, HTTPException: on_http_exception, Exception: on_error},
            middleware=[
                *([Middleware(TrustedHostMiddleware, settings.allowed_hosts)] if settings.allowed_hosts else []),
                Middleware(self._origins.wrap),
                Middleware(Shortcut, "/events", self._subscribe),
            ],
            lifespan=self._lifespan,
        )

    def _routes(self) -> list[BaseRoute]:
        publish = Publish(self.settings, self.publisher, self._origins, self.metrics)
        page = ConsolePage(self.settings, console.page(self._redis_cli), console.content_security_policy())
        ops = Ops(self.hub, self.interest, self.pubsub, self.metrics)
        return [
            Route("/events", self._subscribe, methods=["GET", "POST"]),
            Route("/events/{channel:channel}", self._subscribe, methods=["GET"]),
            Route("/publish/{channel:channel}", publish, methods=["POST"]),
            Route("/healthz", ops.healthz),
            Route("/readyz", ops.readyz),
            Route("/metrics", ops.metrics),
            Route("/", page.answer),
        ]

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self.pubsub.run(), name="pubsub"),
            asyncio.create_task(self.hub.pinger.run(), name="pinger"),
            asyncio.create_task(self._sweep(), name="sweep"),
        ]
        for task in tasks:
            task.add_done_callback(_must_not_end)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.publisher.close()
            await self.canary.close()
            await self.handover.close()
            await self.durable.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL)
            self.hub.sweep()
            self.catch_up.sweep()


def _must_not_end(task: asyncio.Task[None]) -> None:
    """A worker without one of its tasks would look well and do nothing: better it drains and is started anew."""
    if not task.cancelled():
        logger.critical("the task %s has ended: %r; stopping", task.get_name(), task.exception())
        signal.raise_signal(signal.SIGTERM)


def create_app(settings: Settings | None = None) -> Starlette:
    """The ASGI application, for any server; without settings they come from the environment.

    Raises:
        SettingsError: a setting is unknown or impossible.
    """
    return Gateway(settings or Settings.load()).app
