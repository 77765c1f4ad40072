"""A reference reader of event streams: the HTML standard's section 9.2.6 written down word by word, slowly.

It shares nothing with the gateway, so that both can be held against each other.
"""

from testing.stream import Received


class Reference:
    """Interprets a whole stream.

    Attributes:
        events: what was dispatched.
        last_event_id: the last event ID string.
        retry: the reconnection time in ms, or None if the stream set none.
    """

    def __init__(self, stream: bytes) -> None:
        self.events: list[Received] = []
        self.last_event_id = ""
        self.retry: int | None = None
        self._id_buffer = ""
        self._data = ""
        self._type = ""
        text = stream.decode("utf-8", errors="replace").removeprefix("\ufeff")
        for line in _lines(text):
            self._line(line)

    def _line(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif line.startswith(":"):
            pass
        elif ":" in line:
            field, _, value = line.partition(":")
            self._field(field, value.removeprefix(" "))
        else:
            self._field(line, "")

    def _field(self, field: str, value: str) -> None:
        if field == "event":
            self._type = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id":
            if "\0" not in value:
                self._id_buffer = value
        elif field == "retry" and value and all(digit in "0123456789" for digit in value):
            self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id_buffer
        if self._data == "":
            self._type = ""
            return
        self.events.append(Received(self._data.removesuffix("\n"), self._type or "message", self.last_event_id))
        self._data = self._type = ""


def _lines(text: str) -> list[str]:
    """The lines that are ended; the rest of the stream is no line (9.2.5: it is discarded)."""
    lines, line, position = [], "", 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\r":
            if text[position : position + 1] == "\n":
                position += 1
            lines.append(line)
            line = ""
        elif character == "\n":
            lines.append(line)
            line = ""
        else:
            line += character
    return lines
