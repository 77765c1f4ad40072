"""A client of an event stream, read by an SSE parser that isn't ours (httpx-sse)."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
from httpx_sse import EventSource

from testing.waiting import DEADLINE


class Received(NamedTuple):
    """An event as a client sees it."""

    data: str
    type: str = "message"
    id: str = ""


def publishers_id(id_: str) -> str:
    """The id if its publisher gave it; nothing for a position, which no test can know beforehand."""
    own, tilde, place = id_.rpartition("~")
    is_place = re.fullmatch(r"2\.[0-9a-f]+\.[0-9a-f]+(\.[\w-]+:[0-9a-f]+)*(\.s[\w-]{22})?", place)
    return (own if tilde else "") if is_place else id_


class Stream:
    """An open stream. `next()` waits for the next event; `gateway.open` is noted and skipped.

    Attributes:
        last_event_id: the last id seen, whoever gave it.
        ids: each id, as it was sent.
        opened: the data of each `gateway.open`.
        retry: the newest reconnection time, in ms.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.retry: int | None = None
        self.last_event_id = ""
        self.ids: list[str] = []
        self.opened: list[str] = []
        self._events = self._iterate()

    def next(self) -> Received:
        """The next event.

        Raises:
            StopIteration: the stream has ended.
            httpx.ReadTimeout: nothing came.
        """
        return next(self._events)

    def take(self, count: int) -> list[Received]:
        return [self.next() for _ in range(count)]

    def rest(self) -> list[Received]:
        """All events until the stream's end."""
        return list(self._events)

    def _iterate(self) -> Iterator[Received]:
        for event in EventSource(self.response).iter_sse():
            if event.retry is not None:
                self.retry = event.retry
            if event.id:
                self.last_event_id = event.id
                self.ids.append(event.id)
            if event.event == "gateway.open":
                self.opened.append(event.data)
            else:
                yield Received(event.data, event.event, publishers_id(event.id))


@contextmanager
def open_stream(
    url: str, channels: Sequence[str] | str = (), *, method: str = "GET", timeout: float = DEADLINE, **request: Any
) -> Iterator[Stream]:
    """An open stream; once this returns, Redis has confirmed its channels."""
    channels = [channels] if isinstance(channels, str) else channels
    parameters = [("channel", name) for name in channels] + list(request.pop("params", []))
    # httpx would load the system's certificates for each client, which takes fifty times as long as the request.
    transport = httpx.HTTPTransport(verify=False, **request.pop("transport", {}))
    with (
        httpx.Client(timeout=timeout, transport=transport) as client,
        client.stream(method, f"{url}/events" if "/events" not in url else url, params=parameters or None, **request)
        as response,
    ):  # fmt: skip
        assert response.status_code == 200, response.read()
        yield Stream(response)
