"""A uvicorn server that drains before it stops."""

import functools
import gc
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.applications import Starlette

from gateway.fanout.admission import Admission
from gateway.fanout.members import Members
from gateway.metrics import Metrics
from gateway.server.access_log import RedactTokens
from gateway.server.deadlines import Deadlines
from gateway.server.drain import drain
from gateway.server.files import default_max_connections
from gateway.server.listening_socket import check_unix_path, tcp_sockets, why_not_tcp, why_not_unix
from gateway.server.log_floods import LogFloods
from gateway.server.protocol import GatewayProtocol
from gateway.settings import Settings

# Connections live long, so there is little for the collector to find and much to walk, and nobody is written to while
# it walks. A stream is some ten objects. New ones are walked once 5,000 at a time (0.4 ms), and once 15,000 at a time
# (1.3 ms; with 20,000 and 10 for the first two numbers it was 29). All of them take 27 ms with 18,000 streams.
_YOUNG = (5_000, 1)
# Streams on the direct path refer to nothing in a circle. All is walked after some four million new objects, so that
# what does cannot stay for ever.
_ALL_DIRECT = 300
# On the portable path every stream ends in a circle, of its tasks and how they were cancelled: some 4 kB each, which
# must not wait that long.
_ALL_PORTABLE = 10

_BACKLOG = 16_384
"""Connections that may wait to be accepted, if net.core.somaxconn is as large: what a worker takes in two seconds.

What comes beyond is dropped: a client's kernel tries again after a second; nginx, at a unix socket, fails at once.
"""


class Served(Protocol):
    """One worker's parts, as far as the server has to know them."""

    app: Starlette
    settings: Settings
    metrics: Metrics
    admission: Admission
    members: Members

    async def hand_over(self) -> None:
        """This worker is about to shut down: others take over what only it has heard."""

    async def finish_answers(self) -> None:
        """Answer what other workers have asked so far."""


class GatewayServer(uvicorn.Server):
    """Serves one worker.

    On the first SIGTERM or SIGINT it takes no more connections, ends the open streams over the drain window, and
    leaves when the last is gone or at the deadline. A second signal leaves at once.

    Args:
        gateway: what is served.
        on_started: called with the address once connections are accepted.
    """

    def __init__(
        self,
        gateway: Served,
        on_started: Callable[[str], None] = lambda _: None,
    ) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._on_started = on_started
        self._settings = settings
        super().__init__(
            uvicorn.Config(
                gateway.app,
                host=settings.host,
                port=settings.port,
                uds=settings.unix_socket or None,
                loop="uvloop",
                http=functools.partial(  # type: ignore[arg-type]
                    GatewayProtocol,
                    deadlines=Deadlines(settings),
                    metrics=gateway.metrics,
                    streams=gateway.members,
                ),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=settings.access_log,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                # Seconds; uvicorn says int and hands it to asyncio, which takes fractions.
                timeout_graceful_shutdown=settings.shutdown_timeout
                - settings.drain_window
                - settings.handover_timeout,  # type: ignore[arg-type]
            )
        )
        gateway.metrics.connections = self.server_state.connections
        gateway.metrics.max_connections = settings.max_connections or default_max_connections()
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addFilter(LogFloods(gateway.metrics))
        if settings.access_log:
            logging.getLogger("uvicorn.access").addFilter(RedactTokens())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, on sockets that are opened here: it says of a port only what the kernel says.

        Raises:
            CannotListen: on what the settings say.
        """
        settings = self._settings
        if settings.unix_socket:
            check_unix_path(settings)
        elif sockets is None:
            sockets = tcp_sockets(settings)
        try:
            await super().startup(sockets)
        except OSError as error:
            await self.lifespan.shutdown()
            raise (why_not_unix if settings.unix_socket else why_not_tcp)(error, settings) from error
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_YOUNG, _ALL_PORTABLE if self._settings.delivery == "portable" else _ALL_DIRECT)
        self._on_started(self.address)

    @property
    def address(self) -> str:
        """Where it listens, as a URL's host and port or a socket's path."""
        if self._settings.unix_socket:
            return self._settings.unix_socket
        name = self.servers[0].sockets[0].getsockname()
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: there a second SIGTERM is ignored, and sse-starlette hooks into it.
        self._captured_signals.append(sig)
        if self.should_exit:
            self.force_exit = True
            # The lifespan is cancelled then, which uvicorn would report as a fault.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Before uvicorn's own shutdown, which waits for the streams to end and runs the lifespan's end last.
        for server in self.servers:
            server.close()
        # A proxy keeps idle connections, and would send those who are disconnected now to this worker again.
        for connection in list(self.server_state.connections):
            if isinstance(connection, GatewayProtocol):
                connection.shutdown()
        await self._gateway.hand_over()
        await drain(self._gateway.admission, self._settings, hurry=lambda: self.force_exit)
        await self._gateway.finish_answers()
        await super().shutdown(sockets)
        # uvicorn would raise the signals again, for the shell's sake; an orderly end is no death by signal.
        self._captured_signals.clear()
