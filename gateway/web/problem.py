"""Errors a person can act on: `application/problem+json` (RFC 9457)."""

from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Problem(Exception):
    """An error answer; also an ASGI application that sends it.

    Args:
        status: HTTP status code.
        detail: what is wrong and what to change.
        headers: further headers.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> Response:
        body = {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail}
        return Response(
            orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
            self.status,
            {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers},
            "application/problem+json",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.response()(scope, receive, send)


async def on_problem(_: Request, error: Exception) -> Response:
    """Starlette's exception handler for `Problem`."""
    assert isinstance(error, Problem)
    return error.response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the same form as ours."""
    assert isinstance(error, HTTPException)
    detail = error.detail
    headers = dict(error.headers or {})
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}; streams are at /events."
    elif error.status_code == 405:
        allowed = headers.get("Allow", "")
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": f"{allowed}, OPTIONS"})
        detail = f"{request.method} is not possible here, only {allowed}."
    return Problem(error.status_code, detail, headers).response()


async def on_error(_: Request, __: Exception) -> Response:
    """A fault of ours; the log has the traceback."""
    return Problem(500, "The gateway failed to answer; its log says why.").response()
