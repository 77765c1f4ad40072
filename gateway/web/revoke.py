"""POST /revoke: no grant of a subject counts any more."""

import orjson
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.metrics import Metrics
from gateway.ports import PublishFailed, Revoker
from gateway.settings import Settings
from gateway.web.body import Body, ClientGone
from gateway.web.guard import Guard
from gateway.web.problem import Problem

MAX_SUBJECT_BYTES = 1024


class Revoke:
    """The endpoint, for those whose grant says `admin`."""

    def __init__(self, settings: Settings, revoker: Revoker, guard: Guard | None, metrics: Metrics) -> None:
        self._settings = settings
        self._revoker = revoker
        self._guard = guard
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._guard is None:
            raise Problem(403, "Everything is public here, so there is nothing to revoke (setting jwt_secret).")
        await self._guard.admin(scope)
        with Body(self._settings.max_bodies_bytes, self._metrics) as body:
            try:
                content = await body.read(scope, receive, self._settings.max_request_bytes, "max_request_bytes")
            except ClientGone:
                return
        sub = _subject(content)
        try:
            await self._revoker.revoke(sub)
        except PublishFailed as error:
            raise Problem(503, f"Redis did not take it: {error}.", {"Retry-After": "1"}) from None
        await JSONResponse({"sub": sub}, headers={"X-Content-Type-Options": "nosniff"})(scope, receive, send)


def _subject(content: bytes) -> str:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"The body is no JSON: {error}.") from None
    sub = value.get("sub") if isinstance(value, dict) else None
    if not isinstance(sub, str) or not sub or len(sub.encode()) > MAX_SUBJECT_BYTES:
        raise Problem(400, f'The body must be {{"sub": "…"}}, with 1 to {MAX_SUBJECT_BYTES} bytes.')
    return sub
