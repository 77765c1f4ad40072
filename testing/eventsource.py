"""A client that behaves like a browser's EventSource, many of which fit into one test."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import httpx
from httpx_sse import aconnect_sse


class EventSource:
    """Reconnects as the HTML standard says: after any end of a good answer, never after a bad one.

    Attributes:
        state: what `readyState` would say.
        data: the data of every event received but `gateway.open`, over all connections.
        opened: how often a good answer began.
        retry: the reconnection time in force, in seconds.
        refusal: why it is closed.
    """

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self.state: Literal["connecting", "open", "closed"] = "connecting"
        self.data: list[str] = []
        self.opened = 0
        self.retry = 3.0
        self.refusal = ""
        self._last_event_id = ""

    async def run(self) -> None:
        """Until it is closed by a bad answer, or cancelled."""
        while self.state != "closed":
            try:
                await self._stream()
            except httpx.TransportError:
                self.state = "connecting"
            await asyncio.sleep(self.retry)

    async def _stream(self) -> None:
        headers = {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}
        async with aconnect_sse(self._client, "GET", self._url, headers=headers) as source:
            response = source.response
            kind = response.headers.get("Content-Type", "").partition(";")[0]
            if response.status_code != 200 or kind != "text/event-stream":
                self.refusal = f"{response.status_code} {kind}"
                self.state = "closed"
                return
            self.state = "open"
            self.opened += 1
            async for event in source.aiter_sse():
                if event.retry is not None:
                    self.retry = event.retry / 1000
                self._last_event_id = event.id
                if event.data and event.event != "gateway.open":
                    self.data.append(event.data)
            self.state = "connecting"


@contextmanager
def event_sources(
    group: asyncio.TaskGroup, client: httpx.AsyncClient, url: str, count: int
) -> Iterator[list[EventSource]]:
    """`count` of them, running until the block is left."""
    sources = [EventSource(client, url) for _ in range(count)]
    tasks = [group.create_task(source.run()) for source in sources]
    try:
        yield sources
    finally:
        for task in tasks:
            task.cancel()


def many() -> httpx.AsyncClient:
    """A client without limits on connections or on silence."""
    return httpx.AsyncClient(timeout=httpx.Timeout(30, read=None), limits=httpx.Limits(max_connections=None))
