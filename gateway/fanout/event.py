"""A published message as a Server-Sent Event.

The rules are the contract's: valid UTF-8 is delivered as `data:` lines; a JSON object that holds `event` and
`data`, and no key but those of `ENVELOPE_KEYS`, is an envelope whose fields become the event's. The stream format
is section 9.2 "Server-sent events" of the HTML standard.
"""

import contextlib
import json
import re
from typing import Any

import orjson

from gateway.fanout.ids import DurableId, parse_durable

ENVELOPE_KEYS = frozenset(("event", "data", "id", "retry", "comment"))
RESERVED_PREFIX = "gateway."
"""Channels and event types that begin so are the gateway's own."""
MAX_RETRY_MS = 86_400_000
"""A day: a publisher's typing error must not keep browsers away for weeks."""

DURABLE_MARK = b"\x1egateway:"
"""What a durable message begins with in Pub/Sub; the functions in broker/durable.lua write it."""

_JSON_SPACE = b" \t\r\n"
# CR, LF and NUL end a field or make a browser ignore it (HTML standard, 9.2.6).
_UNSAFE_IN_FIELD = re.compile(r"[\r\n\0]")
_LONG_NUMBER = re.compile(rb"\d{19}")


class Undeliverable(ValueError):
    """A message that is refused as a whole.

    Attributes:
        reason: one word for the metric: `too_large`, `not_utf8`, `bad_envelope` or `bad_durable`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Event:
    """One event, encoded once.

    Attributes:
        type: the event's type; None means the browser's default, "message".
        id: its id, or None.
        durable: its id if it is a durable one, else None.
        ring_hash: the hash in its id if a worker gave it, else None.
        frame: its bytes in an event stream, blank line included.
    """

    __slots__ = ("durable", "frame", "id", "ring_hash", "type")

    def __init__(
        self, frame: bytes, type_: str | None = None, id_: str | None = None, durable: DurableId | None = None
    ) -> None:
        self.frame = frame
        self.type = type_
        self.id = id_
        self.durable = durable
        self.ring_hash: str | None = None

    def with_id(self, id_: str, ring_hash: str | None = None) -> "Event":
        """The same event with an id."""
        event = Event(b"id: %b\n%b" % (id_.encode(), self.frame), self.type, id_, self.durable)
        event.ring_hash = ring_hash
        return event

    def frame_as(self, type_: str) -> bytes:
        """The frame for clients that want events without a type of their own to have this one."""
        return b"event: %b\n%b" % (type_.encode(), self.frame) if self.type is None else self.frame


def parse(payload: bytes, max_payload_bytes: int, max_id_bytes: int) -> Event:
    """Make the event a published payload means.

    Raises:
        Undeliverable: not UTF-8, larger than allowed, or an envelope with a field that can't be.
    """
    if payload.startswith(DURABLE_MARK):
        return _parse_durable(payload, max_payload_bytes, max_id_bytes)
    if len(payload) > max_payload_bytes:
        raise Undeliverable("too_large", f"{len(payload)} bytes; at most {max_payload_bytes} are delivered")
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise Undeliverable("not_utf8", f"not UTF-8 at byte {error.start}") from None
    envelope = _envelope(payload)
    if envelope is None:
        return Event(_lines(b"data: ", payload) + b"\n")
    return _from_envelope(envelope, payload, max_id_bytes)


def check_publishable(payload: bytes, durable: bool, max_payload_bytes: int, max_id_bytes: int) -> None:
    """Say beforehand what would be refused later, where its sender can learn of it.

    Raises:
        Undeliverable: as `parse` does; and for durable messages with an id of their own.
    """
    if payload.startswith(DURABLE_MARK):
        raise Undeliverable("bad_durable", "it begins with the mark that Redis puts before durable messages")
    if parse(payload, max_payload_bytes, max_id_bytes).id is not None and durable:
        raise _bad("id", "is not possible in a durable message: it gets its id from Redis' clock")


def durable_payload(id_: DurableId, payload: bytes) -> bytes:
    """A durable message as it goes through Pub/Sub: marked, with its id in front."""
    return b"%b%b\n%b" % (DURABLE_MARK, str(id_).encode(), payload)


def own_event(type_: str, fields: dict[str, Any]) -> Event:
    """One of the gateway's in-band events, such as `gateway.gap`; `fields` become its data, as JSON."""
    return Event(b"event: %b\ndata: %b\n\n" % (type_.encode(), orjson.dumps(fields)), type_)


def retry_frame(seconds: float) -> bytes:
    """The line that tells a client its reconnection time; no event is dispatched for it."""
    return b"retry: %d\n\n" % (seconds * 1000)


def _parse_durable(payload: bytes, max_payload_bytes: int, max_id_bytes: int) -> Event:
    head, _, body = payload.partition(b"\n")
    id_ = parse_durable(head.removeprefix(DURABLE_MARK).decode(errors="replace"))
    if id_ is None:
        raise Undeliverable("bad_durable", "the mark of a durable message without an id")
    if body.startswith(DURABLE_MARK):
        raise Undeliverable("bad_durable", "marked as durable twice")
    event = parse(body, max_payload_bytes, max_id_bytes)
    if event.id is not None:
        raise _bad("id", "is not possible in a durable message: it gets its id from Redis' clock")
    event = event.with_id(str(id_))
    event.durable = id_
    return event


def _envelope(payload: bytes) -> dict[str, Any] | None:
    # Most payloads are no envelope. A key may be spelt with \u escapes, so only their absence rules one out
    # without parsing.
    if b'"event"' not in payload and b"\\u" not in payload:
        return None
    if not payload.lstrip(_JSON_SPACE).startswith(b"{"):
        return None
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if "event" in value and "data" in value and value.keys() <= ENVELOPE_KEYS:
        return value  # type: ignore[no-any-return]
    return None


def _from_envelope(envelope: dict[str, Any], payload: bytes, max_id_bytes: int) -> Event:
    type_ = _text_field(envelope, "event", max_id_bytes)
    if type_.startswith(RESERVED_PREFIX):
        raise _bad("event", f"{type_!r}: types that begin with {RESERVED_PREFIX!r} are the gateway's own")
    lines: list[bytes] = []
    if "comment" in envelope:
        comment = envelope["comment"]
        if not isinstance(comment, str):
            raise _bad("comment", f"must be a string, not {_json_type(comment)}")
        lines.append(_lines(b": ", comment.encode()))
    if type_:  # an empty type means the default one (HTML standard, 9.2.6), so no line says the same
        lines.append(b"event: %b\n" % type_.encode())
    id_ = None
    if "id" in envelope:
        id_ = _text_field(envelope, "id", max_id_bytes)
        lines.append(b"id: %b\n" % id_.encode())
    if "retry" in envelope:
        retry = envelope["retry"]
        if type(retry) is not int:
            raise _bad("retry", f"must be a whole number of milliseconds, not {_json_type(retry)}")
        if not 0 <= retry <= MAX_RETRY_MS:
            raise _bad("retry", f"must lie between 0 and {MAX_RETRY_MS} milliseconds")
        lines.append(b"retry: %d\n" % retry)
    data = envelope["data"]
    lines.append(_lines(b"data: ", data.encode() if isinstance(data, str) else _compact(data, payload)))
    lines.append(b"\n")
    return Event(b"".join(lines), type_ or None, id_)


def _text_field(envelope: dict[str, Any], name: str, max_bytes: int) -> str:
    value = envelope[name]
    if not isinstance(value, str):
        raise _bad(name, f"must be a string, not {_json_type(value)}")
    if _UNSAFE_IN_FIELD.search(value):
        raise _bad(name, "must not contain CR, LF or NUL")
    if len(value.encode()) > max_bytes:
        raise _bad(name, f"is longer than {max_bytes} bytes")
    return value


def _bad(field: str, problem: str) -> Undeliverable:
    return Undeliverable("bad_envelope", f"envelope field `{field}` {problem}")


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _compact(data: Any, payload: bytes) -> bytes:
    if _LONG_NUMBER.search(payload):
        # orjson reads integers beyond 64 bits as floats, which would change a publisher's number.
        # Nested too deep for json, not for orjson: then the nearest float has to do.
        with contextlib.suppress(RecursionError):
            data = json.loads(payload, parse_int=_verbatim, parse_float=_verbatim)["data"]
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError as error:  # it reads deeper nesting than it writes
        raise _bad("data", f"can't be written as JSON: {error}") from None


def _verbatim(number: str) -> orjson.Fragment:
    return orjson.Fragment(number)


def _lines(prefix: bytes, text: bytes) -> bytes:
    """The text with `prefix` before each of its lines, ended by LF; CR, LF and CRLF all end a line."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in text:
        text = text.replace(b"\n", b"\n" + prefix)
    return b"%b%b\n" % (prefix, text)
