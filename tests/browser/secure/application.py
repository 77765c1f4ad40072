"""A small application beside the gateway: it knows its users, and publishes for them.

It runs in a container (compose.yml) with what the image of a worker has. Behind nginx its pages are under /app/; the
gateway asks it at /gateway/auth, which nginx doesn't pass on.
"""

import asyncio
import itertools
import secrets
import time
from contextlib import suppress
from pathlib import Path

import httpx
import jwt
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

PORT = 8080
LOGGED_IN = 600.0
"""Seconds for which a login counts."""
_PAUSE = 0.02
"""Seconds between two messages."""
_SECRETS = Path("/run/secrets")
_PAGE = """<!doctype html>
<title>application</title>
<form method="post" action="/app/login"><input name="user"><button>Log in</button></form>
<p id="user">{user}</p>
"""


class Sessions:
    """Who is logged in, and until when (seconds since 1970)."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[str, float]] = {}

    def begin(self, user: str, seconds: float) -> str:
        """A new session; returns what its cookie holds."""
        name = secrets.token_urlsafe(24)
        self._sessions[name] = user, time.time() + seconds
        return name

    def of(self, request: Request) -> tuple[str, float] | None:
        """The user and the end of the request's session."""
        found = self._sessions.get(request.cookies.get("sessionid", ""))
        return found if found is not None and found[1] > time.time() else None


class Publishing:
    """Numbered messages on channels, one after the other, for as long as somebody wants them."""

    def __init__(self) -> None:
        password = (_SECRETS / "redis_publisher").read_text()
        self._redis = Redis(host="redis", username="publisher", password=password, driver_info=None)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sent: dict[str, int] = {}

    def start(self, channel: str) -> None:
        self._sent[channel] = 0
        self._tasks[channel] = asyncio.create_task(self._publish(channel))

    async def stop(self, channel: str) -> int:
        """How many there were."""
        task = self._tasks.pop(channel)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return self._sent[channel]

    async def _publish(self, channel: str) -> None:
        for number in itertools.count(1):
            # Not cancelled halfway: it would be sent and not counted.
            await asyncio.shield(self._send(channel, number))
            await asyncio.sleep(_PAUSE)

    async def _send(self, channel: str, number: int) -> None:
        self._sent[channel] = number
        await self._redis.publish(channel, f"payload {number}")


sessions = Sessions()
publishing: Publishing


async def page(request: Request) -> Response:
    session = sessions.of(request)
    return HTMLResponse(_PAGE.format(user=session[0] if session else ""))


async def login(request: Request) -> Response:
    user = (await request.body()).decode().removeprefix("user=")
    response = RedirectResponse("/app/", 303)
    _set(response, "sessionid", sessions.begin(user, LOGGED_IN), "/")
    return response


async def renew_session(request: Request) -> Response:
    """A new session for whoever has one, for so many `seconds`."""
    if (session := sessions.of(request)) is None:
        return Response(status_code=401)
    response = Response(status_code=204)
    _set(response, "sessionid", sessions.begin(session[0], _seconds(request)), "/")
    return response


async def renew_token(request: Request) -> Response:
    """A token in a cookie, for so many `seconds`."""
    if (session := sessions.of(request)) is None:
        return Response(status_code=401)
    response = Response(status_code=204)
    _set(response, "gateway_token", _token(session[0], _seconds(request), "news.token"), "/events")
    return response


async def ticket(request: Request) -> Response:
    """A ticket for a stream of so many `seconds`, which takes a token that ends then."""
    if (session := sessions.of(request)) is None:
        return Response(status_code=401)
    headers = {"Authorization": f"Bearer {_token(session[0], _seconds(request), 'news.ticket')}"}
    async with httpx.AsyncClient() as client:
        answer = await client.post("http://worker:8080/ticket", json={"channels": ["news.ticket"]}, headers=headers)
    return Response(answer.content, answer.status_code, media_type="application/json")


async def gateway_auth(request: Request) -> Response:
    """What the gateway asks (docs/auth.md)."""
    if (session := sessions.of(request)) is None:
        return Response(status_code=401)
    user, end = session
    return JSONResponse({"sub": user, "subscribe": ["news.session"], "expires_at": end})


async def publish(request: Request) -> Response:
    channel = request.query_params["channel"]
    if request.method == "POST":
        publishing.start(channel)
        return Response(status_code=204)
    return JSONResponse(await publishing.stop(channel))


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


def _token(user: str, seconds: float, channel: str) -> str:
    claims = {"sub": user, "exp": time.time() + seconds, "gateway": {"subscribe": [channel]}}
    return jwt.encode(claims, (_SECRETS / "jwt_secret").read_text(), "HS256")


def _seconds(request: Request) -> float:
    return float(request.query_params["seconds"])


def _set(response: Response, name: str, value: str, path: str) -> None:
    response.set_cookie(name, value, path=path, secure=True, httponly=True, samesite="lax")


async def serve() -> None:
    global publishing
    publishing = Publishing()
    routes = [
        Route("/app/", page),
        Route("/app/login", login, methods=["POST"]),
        Route("/app/session", renew_session, methods=["POST"]),
        Route("/app/token", renew_token, methods=["POST"]),
        Route("/app/ticket", ticket, methods=["POST"]),
        Route("/app/publishing", publish, methods=["POST", "DELETE"]),
        Route("/gateway/auth", gateway_auth, methods=["POST"]),
        Route("/healthz", healthz),
    ]
    # Its own log would hold nothing that is looked at.
    config = uvicorn.Config(Starlette(routes=routes), host="0.0.0.0", port=PORT, log_level="warning")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(serve())
