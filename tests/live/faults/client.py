"""A client that keeps account of everything it was sent, across its reconnections."""

import json
import random
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Self

import httpx
from httpx_sse import EventSource, ServerSentEvent

from testing.servers import Worker
from testing.waiting import DEADLINE


class Client:
    """Reconnects with the id it had, as EventSource does.

    An event is noted as its data, a gap as `gap <channel> <reason>`; the gateway's other events are not noted.

    Args:
        channels: what it listens to.
        patterns: likewise.

    Attributes:
        events: everything it was sent, in order.
        ids: the client's id after each of them.
        last_event_id: the newest id.
        closing: the reason in the newest `gateway.closing`.
    """

    def __init__(self, *channels: str, patterns: Sequence[str] = ()) -> None:
        self._parameters = {"channel": list(channels), "pattern": list(patterns)}
        self._stack = ExitStack()
        self.events: list[str] = []
        self.ids: list[str] = []
        self.last_event_id = ""
        self.closing = ""

    @property
    def gaps(self) -> list[str]:
        return [event for event in self.events if event.startswith("gap ")]

    @property
    def messages(self) -> list[str]:
        return [event for event in self.events if not event.startswith("gap ")]

    def open(self, worker: Worker, last_event_id: str | None = None) -> list[str]:
        """Leave, and come back on a worker; returns what was sent before `gateway.open`.

        Args:
            worker: where.
            last_event_id: another id than the newest.
        """
        self._connect(worker, self.last_event_id if last_event_id is None else last_event_id)
        before = len(self.events)
        while (event := self._read()).event != "gateway.open":
            assert event.event != "gateway.closing", event.data
        return self.events[before:]

    def missed(self, worker: Worker, count: int) -> list[str]:
        """As `open`, but at least the first `count` events.

        What was published a moment ago may not have reached a busy worker when the stream begins.
        """
        events = self.open(worker)
        return events + self.take(max(0, count - len(events)))

    def replay(self, worker: Worker, count: int) -> list[str]:
        """Come back on a worker, and break off after `count` events."""
        self._connect(worker, self.last_event_id)
        events = self.take(count)
        self.leave()
        return events

    def take(self, count: int) -> list[str]:
        """The next `count` events."""
        before = len(self.events)
        while len(self.events) < before + count:
            self._read()
        return self.events[before : before + count]

    def until(self, event: str) -> list[str]:
        """What comes up to and including this event; nothing if it has come already."""
        before = len(self.events)
        while event not in self.events:
            self._read()
        return self.events[before:]

    def wander(self, workers: Sequence[Worker], chance: random.Random, last: str) -> None:
        """Move from worker to worker after some of what each sends, until this event has come."""
        while last not in self.events:
            with suppress(StopIteration, httpx.TransportError):
                self._connect(chance.choice(workers), self.last_event_id)
                for _ in range(chance.randint(1, 20)):
                    self._read()
        self.leave()

    def rest(self) -> list[str]:
        """Everything until the stream's end, clean or not."""
        before = len(self.events)
        try:
            while True:
                self._read()
        except (StopIteration, httpx.RemoteProtocolError, httpx.ReadError):
            self.leave()
        return self.events[before:]

    def leave(self) -> None:
        self._stack.close()

    def _connect(self, worker: Worker, last_event_id: str) -> None:
        self.leave()
        client = self._stack.enter_context(httpx.Client(timeout=DEADLINE, verify=False))
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        response = self._stack.enter_context(
            client.stream("GET", f"{worker.url}/events", params=self._parameters, headers=headers)
        )
        assert response.status_code == 200, response.read()
        self._stream = EventSource(response).iter_sse()

    def _read(self) -> ServerSentEvent:
        event = next(self._stream)
        if event.id and event.event != "gateway.gap":
            self.last_event_id = event.id
        if event.event == "gateway.gap":
            data = json.loads(event.data)
            self._note(f"gap {data['channel']} {data['reason']}")
        elif event.event == "gateway.closing":
            self.closing = json.loads(event.data)["reason"]
        elif not event.event.startswith("gateway."):
            self._note(event.data)
        return event

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.ids.append(self.last_event_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
