"""`gateway listen`."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import urlencode

import click
import httpx
from httpx_sse import EventSource, ServerSentEvent
from rich.console import Console
from rich.text import Text

_FIRST_RETRY_MS = 1000
# What a terminal would obey instead of show.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Longer than any sensible ping interval: a connection silent for so long is dead.
_READ_TIMEOUT = 60.0


@click.command(epilog="Example:  gateway listen news scores --url http://localhost:8080")
@click.argument("channels", nargs=-1, metavar="CHANNEL...")
@click.option("--pattern", "patterns", multiple=True, metavar="GLOB", help="Also these patterns (where allowed).")
@click.option("--url", default="http://localhost:8080", show_default=True, help="Where the gateway is.")
@click.option("--token", help="Sent in the header Authorization, where the gateway wants one.")
@click.option("--last-event-id", help="Begin after this event.")
@click.option("--history", type=click.IntRange(1), help="Begin with so many kept events of each channel.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each event and line.")
def listen(
    channels: tuple[str, ...],
    patterns: tuple[str, ...],
    url: str,
    token: str | None,
    last_event_id: str | None,
    history: int | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Print events as they come; reconnect as a browser would."""
    if not channels and not patterns:
        raise click.UsageError("Name at least one channel, such as: gateway listen news")
    console = Console(highlight=False, soft_wrap=True)
    listener = _Listener(
        url, {"channel": channels, "pattern": patterns, "history": [history] if history else []}, token, last_event_id
    )
    try:
        for number, event in enumerate(listener.events(), 1):
            if as_json:
                click.echo(json.dumps({"event": event.event, "id": event.id, "data": event.data}, ensure_ascii=False))
            else:
                console.print(_line(event))
            if number == count:
                return
    except KeyboardInterrupt:
        return


class _Over(Exception):
    """All channels are over."""


class _Listener:
    def __init__(self, url: str, query: Mapping[str, object], token: str | None, last_event_id: str | None) -> None:
        self._url = url.rstrip("/") + "/events"
        self._query = urlencode(query, doseq=True)
        self._headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._last_event_id = last_event_id
        self._retry_ms = _FIRST_RETRY_MS

    def events(self) -> Iterator[ServerSentEvent]:
        timeout = httpx.Timeout(10.0, read=_READ_TIMEOUT)
        with httpx.Client(timeout=timeout, headers=self._headers) as client:
            while True:
                try:
                    yield from self._stream(client)
                except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
                    raise click.ClickException(f"{self._url}: {error}") from None
                except _Over:
                    click.echo("That is over: nothing more is to come.", err=True)
                    return
                except httpx.TransportError as error:
                    click.echo(f"{str(error) or type(error).__name__}; trying again", err=True)
                time.sleep(self._retry_ms / 1000)

    def _stream(self, client: httpx.Client) -> Iterator[ServerSentEvent]:
        headers = [] if self._last_event_id is None else [(b"Last-Event-ID", self._last_event_id.encode())]
        with client.stream("GET", self._url, params=self._query, headers=headers) as response:
            if response.status_code == 204:
                raise _Over
            if response.status_code != 200:
                response.read()
                raise click.ClickException(_explain(response))
            for event in EventSource(response).iter_sse():
                if event.retry is not None:
                    self._retry_ms = event.retry
                if not event.data and event.event == "message" and event.id in ("", self._last_event_id):
                    continue  # httpx-sse makes an event of every blank line, so of other servers' pings too
                if event.id:
                    self._last_event_id = event.id
                if event.event != "gateway.open":  # it is there for its id
                    yield event


def _explain(response: httpx.Response) -> str:
    try:
        return f"{response.status_code}: {response.json()['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code}"


def _line(event: ServerSentEvent) -> Text:
    line = Text(datetime.now().strftime("%H:%M:%S.%f")[:-3] + " ", style="dim")
    if event.event != "message":
        line.append(f"{event.event} ", style="bold cyan")
    if event.id:
        line.append(f"{event.id} ", style="dim")
    return line.append(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", event.data), style="default")
