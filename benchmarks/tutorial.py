"""What the tutorials show: Redis Pub/Sub to browsers with Starlette and sse-starlette.

The reference `gateway bench --compare` measures against. It is what one finds when one looks the matter up:
a listener task that puts each message into the queue of each client, and an async generator per client.
Nothing in it is slow on purpose.

    REDIS_URL=redis://127.0.0.1:6379/0 uvicorn --app-dir benchmarks tutorial:app
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

clients: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)


async def listen(pubsub: redis.client.PubSub) -> None:
    async for message in pubsub.listen():
        if message["type"] == "pmessage":
            for queue in clients[message["channel"]]:
                queue.put_nowait(message["data"])


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    client = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    pubsub = client.pubsub()
    await pubsub.psubscribe("*")
    task = asyncio.create_task(listen(pubsub))
    yield
    task.cancel()
    await pubsub.aclose()  # type: ignore[no-untyped-call]
    await client.aclose()


async def events(request: Request) -> EventSourceResponse:
    channel = request.query_params["channel"]

    async def stream() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        clients[channel].add(queue)
        try:
            yield {"comment": "connected"}
            while True:
                yield {"data": await queue.get()}
        finally:
            clients[channel].discard(queue)

    return EventSourceResponse(stream())


app = Starlette(routes=[Route("/events", events)], lifespan=lifespan)
