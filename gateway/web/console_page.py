"""GET /: the console page."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.settings import Settings
from gateway.web.problem import Problem


class ConsolePage:
    """Serves the page where the setting `console` allows it.

    Args:
        page: the page's HTML.
        policy: its Content-Security-Policy.
    """

    def __init__(self, settings: Settings, page: bytes, policy: str) -> None:
        self._on = settings.console
        self._page = page
        self._headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def answer(self, _: Request) -> Response:
        """The endpoint."""
        if not self._on:
            raise Problem(
                404,
                "The console is off. Turn it on with --console or GATEWAY_CONSOLE=true; streams are at /events.",
            )
        return Response(self._page, headers=self._headers, media_type="text/html")
