"""An event stream, read as a browser reads it (HTML standard, 9.2.6), as its bytes come in."""

from typing import NamedTuple


class Message(NamedTuple):
    """An event as a page gets it."""

    type: str
    data: str


class EventStream:
    """Interprets one stream.

    Attributes:
        last_event_id: what a browser would send as Last-Event-ID now. Starts as what it sent for this stream.
        retry: the reconnection time in seconds the stream has set; None: it set none.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: float | None = None
        self._id = last_event_id
        self._data: list[str] = []
        self._type = ""
        self._rest = b""
        self._begun = False

    def feed(self, body: bytes) -> list[Message]:
        """The events that became complete. What is incomplete when a stream ends is never dispatched."""
        body = self._rest + body
        if not self._begun:
            if len(body) < 3 and b"\xef\xbb\xbf".startswith(body):
                self._rest = body
                return []
            self._begun = True
            body = body.removeprefix(b"\xef\xbb\xbf")
        # A CR at the end may be the first half of a CRLF.
        half = body.endswith(b"\r")
        if b"\r" in body:
            body = (body[:-1] if half else body).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = body.split(b"\n")
        self._rest = rest + b"\r" if half else rest
        messages: list[Message] = []
        for line in lines:
            if line:
                self._field(line.decode(errors="replace"))
            else:
                self._dispatch(messages)
        return messages

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "event":
            self._type = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000

    def _dispatch(self, messages: list[Message]) -> None:
        self.last_event_id = self._id
        if self._data:
            messages.append(Message(self._type or "message", "\n".join(self._data)))
        self._data.clear()
        self._type = ""
