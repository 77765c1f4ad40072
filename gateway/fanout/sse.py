"""Events as text of an event stream (HTML standard, 9.2.5 and 9.2.6)."""

from gateway.memory.event import Event

PING = b":\n"
"""A comment. Without a blank line behind it: many clients make an empty message of every blank line."""


def id_line(id_: str | None) -> bytes:
    """The line that sets the id, which may stand in front of a body; nothing for an event without one."""
    return b"id: %b\n" % id_.encode() if id_ else b""


def body(event: Event, default_type: str | None = None) -> bytes:
    """An event without its id, blank line included.

    Args:
        default_type: the type of an event that has none of its own.
    """
    lines: list[bytes] = []
    if event.comment is not None:
        lines.append(_lines(b": ", event.comment))
    type_ = event.type or default_type
    if type_:
        lines.append(b"event: %b\n" % type_.encode())
    if event.retry is not None:
        lines.append(b"retry: %d\n" % event.retry)
    lines.append(_lines(b"data: ", event.data))
    lines.append(b"\n")
    return b"".join(lines)


def _lines(prefix: bytes, text: bytes) -> bytes:
    """The text with `prefix` before each of its lines, ended by LF; CR, LF and CRLF all end a line."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in text:
        text = text.replace(b"\n", b"\n" + prefix)
    return b"%b%b\n" % (prefix, text)
