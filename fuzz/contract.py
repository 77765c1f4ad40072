"""What the README says becomes of a published payload, written down once more: with the standard library's JSON, and
without any of the gateway's code.
"""

import json
import re
from typing import Any, NamedTuple

MAX_PAYLOAD_BYTES = 1_048_576
MAX_ID_BYTES = 256
_KEYS = {"event", "data", "id", "retry", "comment"}
_PLACE = re.compile(
    r"2\.[0-9a-f]{1,15}\.[0-9a-f]{1,13}"
    r"(\.([A-Za-z0-9_-]{22}|[A-Za-z0-9_-]{8})[0-9a-f]{0,13}:[0-9a-f]{1,13})*(\.n([A-Za-z0-9_-]{6})+)?",
    re.DOTALL,
)
_MOST_READ, _MOST_WRITTEN = 1024, 254
"""Containers within each other: deeper is no JSON to the gateway, or can't be written as JSON again."""
DURABLE_MARK = b"\x1egateway:"


class Delivered(NamedTuple):
    """What a client gets.

    Attributes:
        data: text; or what it says as JSON, because only that is promised.
        type: empty: none of its own.
        own_id: the id its publisher gave it; empty: none.
    """

    data: Any
    is_json: bool
    type: str = ""
    own_id: str = ""


class Rejected(NamedTuple):
    reason: str


def is_place(id_: str) -> bool:
    """Whether an id says where a stream is."""
    return _PLACE.fullmatch(id_) is not None


def is_id_with(id_: str, own_id: str) -> bool:
    """Whether an event's id is a publisher's, perhaps with a place behind it; without one it is a place."""
    if not own_id:
        return is_place(id_)
    return id_ == own_id or (id_.startswith(f"{own_id}~") and is_place(id_.removeprefix(f"{own_id}~")))


def outcome(payload: bytes) -> Delivered | Rejected:
    """What becomes of a payload that is published with PUBLISH."""
    if payload.startswith(DURABLE_MARK):
        head, _, body = payload[len(DURABLE_MARK) :].partition(b"\n")
        if not re.fullmatch(rb"[0-9]{10,16}-[0-9]{1,16}( [0-9a-f]{20})?", head) or body.startswith(DURABLE_MARK):
            return Rejected("bad_durable")
        payload = body  # not signed, so it is a plain message
    if len(payload) > MAX_PAYLOAD_BYTES:
        return Rejected("too_large")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return Rejected("not_utf8")
    envelope = _envelope(text)
    return Delivered(_lines(text), False) if envelope is None else _of_envelope(envelope)


def _envelope(text: str) -> dict[str, Any] | None:
    if not text.lstrip(" \t\r\n").startswith("{"):
        return None
    try:
        value = json.loads(text, parse_constant=_no_json, parse_float=_float)
        json.dumps(value, ensure_ascii=False).encode()  # no surrogates
    except (ValueError, RecursionError):
        return None
    if depth(value) > _MOST_READ:
        return None
    if {"event", "data"} <= value.keys() <= _KEYS:
        return value  # type: ignore[no-any-return]
    return None


def _of_envelope(envelope: dict[str, Any]) -> Delivered | Rejected:
    fields = [envelope["event"], envelope.get("id", "")]
    if not all(isinstance(field, str) for field in fields):
        return Rejected("bad_envelope")
    if any(set("\r\n\0") & set(field) or len(field.encode()) > MAX_ID_BYTES for field in fields):
        return Rejected("bad_envelope")
    type_, own_id = fields
    if type_.startswith("gateway.") or not re.fullmatch(r"[\x21-\x7e]*", own_id):
        return Rejected("bad_envelope")
    if is_place(own_id.rpartition("~")[2]):
        return Rejected("bad_envelope")
    retry = envelope.get("retry", 0)
    if type(retry) is not int or not 0 <= retry <= 86_400_000 or not isinstance(envelope.get("comment", ""), str):
        return Rejected("bad_envelope")
    data = envelope["data"]
    if not isinstance(data, str) and depth(data) > _MOST_WRITTEN:
        return Rejected("bad_envelope")
    return Delivered(_lines(data) if isinstance(data, str) else data, not isinstance(data, str), type_, own_id)


def _lines(text: str) -> str:
    """CR, LF and CRLF are the same to an event stream."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def depth(value: Any) -> int:
    """How many containers lie within each other."""
    found, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        found += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return found


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), -float("inf")):
        raise ValueError("beyond what a float can hold")
    return value


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
