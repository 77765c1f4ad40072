"""Paths, and channel names in them."""

from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.problem import Problem


class _ChannelConvertor(Convertor[str]):
    # Starlette's own `path` stops at a line feed, so that a name that ends in one would lose it silently.
    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("channel", _ChannelConvertor())


def channel_in_path(scope: Scope) -> str | None:
    """The path parameter `channel`, written `{name:channel}` in a route; None where the route has none.

    Raises:
        Problem: 400, not UTF-8.
    """
    channel: str | None = scope.get("path_params", {}).get("channel")
    if channel is not None and "\ufffd" in channel:  # servers put it where bytes are no UTF-8
        try:
            unquote_to_bytes(scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError:
            raise Problem(400, "The path is not UTF-8; percent-encode names as UTF-8.") from None
    return channel


class PlainPaths:
    """Refuses paths with the segments `.` and `..`, whichever way they are written.

    A proxy resolves them before it decides which of its rules is meant, and passes the path on as it came: to nginx
    `/publish/../events` is `/events`, while here it would be the channel `../events` of `/publish/`, which nginx may
    have closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path is decoded. The look at its text spares almost all of them the splitting.
        if "/." in (path := scope.get("path", "")) and not {".", ".."}.isdisjoint(path.split("/")):
            refusal = Problem(
                400, "The path has a segment '.' or '..'; a channel with such a name has its place in the query."
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
