"""By which names this gateway may be called.

A page can have its own name point to any address (DNS rebinding). The browser then takes the gateway there for a part
of that page's site, and only the Host header still tells.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.settings import Settings
from gateway.web.problem import Problem

# Asked by orchestrators at addresses nobody can list, and of no use to a page.
_FOR_ALL = ("/healthz", "/readyz")
# RFC 3986, 3.2.3: a port may also be empty.
_PORT = re.compile(r":[0-9]*\Z")
# Whoever reads the host again may take it for less, or for more, if anything else is in it.
_NAME = re.compile(r"[a-z0-9._-]+")


class Hosts:
    """The setting `allowed_hosts`."""

    def __init__(self, settings: Settings) -> None:
        names = [name.lower() for name in settings.allowed_hosts]
        self._all = not names or "*" in names
        self._exact = frozenset(name for name in names if not name.startswith("*."))
        self._endings = tuple(name[1:] for name in names if name.startswith("*."))

    def allows(self, host: str) -> bool:
        """Whether a Host header, with or without a port, names this gateway."""
        name = _PORT.sub("", host.lower())
        return self._all or name in self._exact or self._is_below(name)

    def _is_below(self, name: str) -> bool:
        return name.endswith(self._endings) and not name.startswith(".") and _NAME.fullmatch(name) is not None

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application, closed to other names."""
        if self._all:
            return app

        async def checked(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan" or scope["path"] in _FOR_ALL:
                await app(scope, receive, send)
                return
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(given) == 1 and self.allows(given[0]):
                await app(scope, receive, send)
                return
            refusal = Problem(
                400,
                f"This gateway is not called {', '.join(given)!r}; the setting allowed_hosts (--allowed-hosts, "
                "GATEWAY_ALLOWED_HOSTS) says by which names it may be reached.",
            )
            await refusal(scope, receive, send)

        return checked
