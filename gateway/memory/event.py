"""A published message as a Server-Sent Event.

The rules are the contract's: valid UTF-8 is delivered as `data:` lines; a JSON object that holds `event` and `data`,
and no key but those of `ENVELOPE_KEYS`, is an envelope whose fields become the event's. The stream format is section
9.2 "Server-sent events" of the HTML standard.
"""

import contextlib
import json
import re
from typing import Any

import orjson

from gateway.memory.place import parse_place

ENVELOPE_KEYS = frozenset(("event", "data", "id", "retry", "comment"))
RESERVED_PREFIX = "gateway."
"""Channels and event types that begin with it are the gateway's own."""
MAX_RETRY_MS = 86_400_000
"""A day: a publisher's typing error must not keep browsers away for weeks."""

DURABLE_MARK = b"\x1egateway:"
"""What a durable message begins with in Pub/Sub; broker/library.lua writes it."""

END = DURABLE_MARK + b"end"
"""What the durable message is that says that its channel is over."""
ENDED = "gateway.ended"

_JSON_SPACE = b" \t\r\n"
# CR, LF and NUL end a field or make a browser ignore it (HTML standard, 9.2.6).
_UNSAFE_IN_FIELD = re.compile(r"[\r\n\0]")
_LONG_NUMBER = re.compile(rb"\d{19}")
# It comes back in a request header, and HTTP parsers differ in what else they accept there (RFC 9110, 5.5).
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]*")
_DURABLE_HEAD = re.compile(rb"(([0-9]{10,16})-([0-9]{1,16}))(?: ([0-9a-f]{20}))?")


class Undeliverable(ValueError):
    """A message that is rejected as a whole.

    Attributes:
        reason: one word for the metric: `too_large`, `not_utf8`, `bad_envelope`, `bad_durable` or `not_durable`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Event:
    """The fields of one event; how they are framed is for `gateway.fanout.encodings`.

    Attributes:
        type: the event's type; None means the browser's default, "message".
        data: UTF-8.
        own_id: the id its publisher gave it, or None.
        retry: the reconnection time it sets, in ms, or None.
        comment: UTF-8, or None.
    """

    __slots__ = ("comment", "data", "own_id", "retry", "type")

    def __init__(
        self,
        data: bytes,
        type_: str | None = None,
        own_id: str | None = None,
        retry: int | None = None,
        comment: bytes | None = None,
    ) -> None:
        self.data = data
        self.type = type_
        self.own_id = own_id
        self.retry = retry
        self.comment = comment

    @property
    def is_end(self) -> bool:
        """Whether it says that its channel is over. No publisher can make such an event of its own."""
        return self.type == ENDED

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return len(self.data) + (len(self.comment) if self.comment else 0)

    def __repr__(self) -> str:
        return f"<event {self.type or 'message'} {self.data[:40]!r}>"


class Durable:
    """What stands in front of a durable message in Pub/Sub.

    Attributes:
        generation: of Redis' data.
        number: of Redis' clock.
        text: both, as they were sent.
        signature: by which the number is known to be Redis'; empty if there is none.
    """

    __slots__ = ("generation", "number", "signature", "text")

    def __init__(self, generation: int, number: int, text: bytes, signature: bytes) -> None:
        self.generation = generation
        self.number = number
        self.text = text
        self.signature = signature


def split_durable(payload: bytes) -> tuple[Durable | None, bytes]:
    """The number of a durable message and the message itself; (None, payload) for a plain one.

    Raises:
        Undeliverable: it begins as a durable message does, and isn't one.
    """
    if not payload.startswith(DURABLE_MARK):
        return None, payload
    head, _, body = payload[len(DURABLE_MARK) :].partition(b"\n")
    match = _DURABLE_HEAD.fullmatch(head)
    if match is None:
        raise Undeliverable("bad_durable", "the mark of a durable message without its number")
    if body.startswith(DURABLE_MARK) and body != END:
        raise Undeliverable("bad_durable", "marked as durable twice")
    return Durable(int(match[2]), int(match[3]), match[1], match[4] or b""), body


def event_of(channel: str, message: bytes, durable: bool, max_payload_bytes: int, max_id_bytes: int) -> Event:
    """Make the event a message from Redis means: what was published, or that the channel is over.

    Args:
        channel: on which it came.
        durable: whether it is one of Redis' numbered messages.

    Raises:
        Undeliverable: as `parse` does.
    """
    if message == END:
        if not durable:
            raise Undeliverable("bad_durable", "only Redis' functions say that a channel is over")
        return own_event(ENDED, {"channel": channel})
    return parse(message, durable, max_payload_bytes, max_id_bytes)


def parse(payload: bytes, durable: bool, max_payload_bytes: int, max_id_bytes: int) -> Event:
    """Make the event a published payload means.

    Args:
        durable: whether it is one of Redis' numbered messages, which have no id of their own.

    Raises:
        Undeliverable: not UTF-8, larger than allowed, or an envelope with an invalid field.
    """
    if len(payload) > max_payload_bytes:
        raise Undeliverable("too_large", f"{len(payload)} bytes; at most {max_payload_bytes} are delivered")
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise Undeliverable("not_utf8", f"not UTF-8 at byte {error.start}") from None
    envelope = _envelope(payload)
    if envelope is None:
        return Event(payload)
    event = _from_envelope(envelope, payload, max_id_bytes)
    if durable and event.own_id is not None:
        raise _bad("id", "is not possible in a durable message: its position is its id")
    return event


def check_publishable(payload: bytes, durable: bool, max_payload_bytes: int, max_id_bytes: int) -> None:
    """Say beforehand what would be rejected later, where its sender can learn of it.

    Raises:
        Undeliverable: as `parse` does.
    """
    if payload.startswith(DURABLE_MARK):
        raise Undeliverable("bad_durable", "it begins with the mark that Redis puts before durable messages")
    parse(payload, durable, max_payload_bytes, max_id_bytes)


def is_safe_in_field(text: str) -> bool:
    """Whether it is one line of an event stream, and can't be taken for two."""
    return _UNSAFE_IN_FIELD.search(text) is None


def own_event(type_: str, fields: dict[str, Any]) -> Event:
    """One of the gateway's in-band events, such as `gateway.gap`; `fields` become its data, as JSON."""
    return Event(orjson.dumps(fields), type_)


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
    comment = None
    if "comment" in envelope:
        comment = envelope["comment"]
        if not isinstance(comment, str):
            raise _bad("comment", f"must be a string, not {_json_type(comment)}")
    own_id = _text_field(envelope, "id", max_id_bytes) if "id" in envelope else None
    if own_id:
        if not _VISIBLE_ASCII.fullmatch(own_id):
            raise _bad("id", "must be visible ASCII, without spaces: clients send it back in a header")
        if parse_place(own_id)[1] is not None:
            raise _bad("id", f"{own_id!r} has the form of the gateway's own ids")
    retry = None
    if "retry" in envelope:
        retry = envelope["retry"]
        if type(retry) is not int:
            raise _bad("retry", f"must be a whole number of milliseconds, not {_json_type(retry)}")
        if not 0 <= retry <= MAX_RETRY_MS:
            raise _bad("retry", f"must lie between 0 and {MAX_RETRY_MS} milliseconds")
    data = envelope["data"]
    return Event(
        data.encode() if isinstance(data, str) else _compact(data, payload),
        type_ or None,  # an empty type means the default one (HTML standard, 9.2.6)
        own_id or None,  # an empty id would make the client forget where it is
        retry,
        comment.encode() if comment is not None else None,
    )


def _text_field(envelope: dict[str, Any], name: str, max_bytes: int) -> str:
    value = envelope[name]
    if not isinstance(value, str):
        raise _bad(name, f"must be a string, not {_json_type(value)}")
    if not is_safe_in_field(value):
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
