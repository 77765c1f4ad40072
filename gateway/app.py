"""The only place where the parts are put together."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway import console
from gateway.auth.authority import authority_of, is_configured
from gateway.auth.tickets import Tickets
from gateway.background import Background
from gateway.broker.broker import Broker
from gateway.fanout.admission import Admission
from gateway.fanout.delivery import Delivery
from gateway.fanout.granted import GrantedStreams
from gateway.fanout.members import Members
from gateway.fanout.quotas import Quotas
from gateway.metrics import Metrics
from gateway.server.exit_signal import ExitSignal
from gateway.server.files import default_max_streams
from gateway.settings import Settings
from gateway.web.console_page import ConsolePage
from gateway.web.guard import Guard
from gateway.web.hosts import Hosts
from gateway.web.ops import Ops
from gateway.web.origins import Origins
from gateway.web.path import PlainPaths
from gateway.web.problem import Problem, on_error, on_http_exception, on_problem
from gateway.web.publish import Publish
from gateway.web.revoke import Revoke
from gateway.web.shortcut import Shortcut
from gateway.web.subscribe import Subscribe
from gateway.web.ticket import MakeTicket

logger = logging.getLogger(__name__)

EVERYTHING_IS_PUBLIC = (
    "everything is public: whoever reaches this gateway may subscribe to every channel; jwt_secret, jwt_public_key, "
    "jwks_url or auth_url would change that"
)
_SWEEP_INTERVAL = 1.0


class Gateway:
    """One worker's parts, wired.

    Args:
        settings: its settings.
        redis_cli: how the console's examples call redis-cli.

    Attributes:
        is_public: whether everybody may do everything, because nothing says who may do what.
        says_it_is_public: whether to say so at the start; commands say it themselves, once they listen.
        started: whether its tasks were started, by the lifespan or by the first request.

    Raises:
        SettingsError: the settings name a Redis in an impossible way.
    """

    def __init__(self, settings: Settings, redis_cli: str = "redis-cli") -> None:
        # The event loops' own clock (asyncio's and uvloop's are both monotonic); there is no loop yet to ask.
        clock = time.monotonic
        self.settings = settings
        self.metrics = Metrics()
        self.broker = broker = Broker(settings, self.metrics, clock)
        self.members = Members(
            settings, settings.max_streams or default_max_streams(), broker.topics, self.metrics, clock
        )
        delivery = Delivery(settings, self.members, broker.listening, self.metrics, clock, broker.clock.need)
        self.admission = Admission(
            settings,
            self.members,
            delivery,
            broker.topics,
            broker.listening,
            lambda: self.link.flush(),
            broker.clock,
            broker.past,
            broker.ends,
            self.metrics,
            clock,
        )
        self.link = broker.connect(self.admission, revocable=is_configured(settings))
        self._origins = Origins(settings)
        self._quotas = Quotas(
            settings.address_streams, settings.address_rate, settings.address_channels, settings.linger, clock
        )
        authority = authority_of(settings, self.metrics)
        self.is_public = authority is None
        self.says_it_is_public = True
        self._authority = authority
        tickets = Tickets(settings, broker.tickets, self.metrics, broker.revocations.is_revoked)
        self._guard = None if authority is None else Guard(settings, authority, tickets, self._origins)
        self._make_ticket = MakeTicket(settings, tickets, self._guard, clock, self.metrics)
        self._granted = GrantedStreams(settings, self.members, self.admission, clock)
        self._subscribe = Subscribe(
            settings, self.members, self.admission, self._quotas, self._granted, self._guard, self.metrics
        )
        self._publish = Publish(settings, broker.publisher, self._origins, self._guard, clock, self.metrics)
        self._redis_cli = redis_cli
        tasks = {
            "link": self.link.run,
            "functions": broker.keep_functions,
            "pinger": self.members.pinger.run,
            "sweep": self._sweep,
        }
        if authority is not None:
            broker.revocations.on_revoked = self._revoked
            authority.is_revoked = broker.revocations.is_revoked
            tasks["expiries"] = self._granted.run
            tasks["revocations"] = broker.revocations.run
            if authority.background is not None:
                tasks["keys"] = authority.background
        self._background = Background(tasks)
        self.started = False
        self.app: Starlette = _App(
            self,
            routes=self._routes(),
            exception_handlers={Problem: on_problem, HTTPException: on_http_exception, Exception: on_error},
            middleware=[
                Middleware(Hosts(settings).wrap),
                Middleware(self._origins.wrap),
                Middleware(Shortcut, "/events", self._subscribe),
                Middleware(PlainPaths),
            ],
            lifespan=self._lifespan,
        )
        # A redirect would lead to whatever host the request names.
        self.app.router.redirect_slashes = False

    def _routes(self) -> list[BaseRoute]:
        revoke = Revoke(self.settings, self.broker.revocations, self._guard, self.metrics)
        html = console.page(self._redis_cli, self.is_public)
        page = ConsolePage(self.settings, html, console.content_security_policy())
        ops = Ops(self.members, self.broker.topics, self.broker.history, self.admission, self.link, self.metrics)
        return [
            Route("/events", self._subscribe, methods=["GET", "POST"]),
            Route("/events/{channel:channel}", self._subscribe, methods=["GET"]),
            Route("/publish/{channel:channel}", self._publish, methods=["POST"]),
            Route("/ticket", self._make_ticket, methods=["POST"]),
            Route("/revoke", revoke, methods=["POST"]),
            Route("/healthz", ops.healthz),
            Route("/readyz", ops.readyz),
            Route("/metrics", ops.metrics),
            Route("/", page.answer),
        ]

    def start(self, owns_process: bool) -> None:
        """Start the tasks, in the running event loop; see `Background.start`."""
        self.started = True
        if self.is_public and self.says_it_is_public:
            logger.info(EVERYTHING_IS_PUBLIC)
        self._background.start(owns_process)

    async def stop(self) -> None:
        """End the streams that are still open, then the tasks."""
        self._subscribe.end_all()
        await self._subscribe.wait_ended()
        await self._background.stop()
        if self._authority is not None:
            await self._authority.close()
        await self.broker.close()

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        exit_signal = ExitSignal(self._subscribe.end_all)
        self.start(owns_process=True)
        exit_signal.watch()
        try:
            yield
        finally:
            exit_signal.stop()
            await self.stop()

    async def hand_over(self) -> None:
        """This worker is about to shut down: others take over what only it has heard."""
        self.members.draining = True
        await self.broker.hand_over()

    async def finish_answers(self) -> None:
        """Answer what other workers have asked so far."""
        await self.broker.finish_answers()

    def _revoked(self, revoked: Sequence[tuple[str, float]]) -> None:
        if self._authority is not None:
            self._authority.forget()
        for sub, at in revoked:
            self._granted.revoke(sub, at)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL)
            for subscriber in self.members.sweep():
                self.admission.close(subscriber, "max_age", "max_age")
            self.broker.history.sweep()
            self.admission.sweep()
            self._quotas.sweep()
            self._granted.sweep()
            self._publish.sweep()
            self._make_ticket.sweep()


class _App(Starlette):
    """Starts the gateway with the first request if there was no lifespan: mounted applications have none."""

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        super().__init__(**options)
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._gateway.started and scope["type"] != "lifespan":
            self._gateway.start(owns_process=False)
        await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> Starlette:
    """The ASGI application, for any server; without settings they come from the environment.

    Raises:
        SettingsError: a setting is unknown or invalid.
    """
    return Gateway(settings or Settings.load()).app
