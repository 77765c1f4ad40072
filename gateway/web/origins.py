"""Whose pages may use this gateway from a browser (CORS, Fetch standard section 3.2)."""

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway.settings import Settings

_ONE_DAY = 86_400

# What clients send that use `fetch`: each is asked for in a preflight (htmx, Datastar and EventSource libraries).
_HEADERS = (
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Datastar-Request",
    "HX-Boosted",
    "HX-Current-URL",
    "HX-Request",
    "HX-Target",
    "HX-Trigger",
    "HX-Trigger-Name",
    "Idempotency-Key",
    "Last-Event-ID",
)


class Origins:
    """The setting `cors_origins`: exact origins, ones with a wildcard, or all."""

    def __init__(self, settings: Settings) -> None:
        self._all = "*" in settings.cors_origins
        self._exact = [origin for origin in settings.cors_origins if "*" not in origin]
        wild = [re.escape(origin).replace(r"\*", r"[^/@]+") for origin in settings.cors_origins if "*" in origin]
        self._regex = re.compile("|".join(wild)) if wild and not self._all else None
        self._headers = sorted({*_HEADERS, *settings.cors_headers})
        self._credentials = settings.cors_credentials

    def allows(self, origin: str) -> bool:
        return (
            self._all
            or origin in self._exact
            or (self._regex is not None and self._regex.fullmatch(origin) is not None)
        )

    def allows_cookies(self, origin: str) -> bool:
        """Whether pages of an origin may send cookies: reading is not enough (`cors_credentials`)."""
        return self._credentials and self.allows(origin)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application with CORS headers, or as it is where no other origin is allowed."""
        if not (self._all or self._exact or self._regex):
            return app
        return CORSMiddleware(
            app,
            allow_origins=["*"] if self._all else self._exact,
            allow_origin_regex=self._regex.pattern if self._regex else None,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=self._headers,
            allow_credentials=self._credentials,
            max_age=_ONE_DAY,
        )


def is_own(origin: str, host: str) -> bool:
    """Whether an origin is that of the host which a request is for.

    The scheme is not compared, because TLS may have ended at a proxy.
    """
    return origin.partition("://")[2] == host
