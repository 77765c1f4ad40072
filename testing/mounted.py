"""An application that mounts the gateway, and has streams of its own."""

from collections.abc import AsyncIterator

import anyio
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from gateway.app import create_app


async def _endless() -> AsyncIterator[str]:
    yield "theirs"
    await anyio.sleep_forever()


async def _theirs(_: Request) -> Response:
    return EventSourceResponse(_endless(), ping=0)


def create() -> Starlette:
    """For `uvicorn --factory`; the gateway's settings come from the environment."""
    return Starlette(routes=[Mount("/sse", create_app()), Route("/theirs", _theirs)])
