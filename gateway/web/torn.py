"""Answers that break off: some clients take a clean end for the last one, and don't come back.

`@microsoft/fetch-event-source` and the AI SDK do. A client can tell only with chunked framing, or over HTTP/2.
"""

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.web.direct import EXTENSION, DirectHandle


class TornError(Exception):
    """Has a server that isn't ours break the connection; it says so in its log."""


class TornResponse(Response):
    """A response without an end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del self.headers["Content-Length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        server: DirectHandle | None = scope.get("extensions", {}).get(EXTENSION)
        tear(None if server is None else server.tear)


def tear(by_server: Callable[[], None] | None) -> None:
    """Break the connection in the middle of an answer.

    Args:
        by_server: does it, on a server of ours.

    Raises:
        TornError: on others.
    """
    if by_server is None:
        raise TornError("the stream's client is to come back (end=abort)")
    by_server()
