"""What workers send each other through Pub/Sub, as JSON; checked, because anybody can publish it."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event, is_safe_in_field
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.merge import Known
from gateway.memory.position import Position

MAX_QUESTIONS = 500
"""Topics in one message."""


class Question(NamedTuple):
    """What came on a topic in (start, end]?"""

    name: str
    is_pattern: bool
    start: Position
    end: Position


class Message(NamedTuple):
    """One message between workers.

    Attributes:
        kind: `hello` (who is there?), `here`, `bye`, `ask` (who knows?), `stay` (who will still know when this worker
            is gone?), `known` (this worker does), `tell` (then tell), `told`, `heard` (who heard everything between
            two ticks?), `did` (this worker did), `inherit` (take over these topics), `inherited`.
        by: the worker that sends it.
        number: of the question that it asks or answers, unique for the worker that asked.
        body: depends on the kind.
    """

    kind: str
    by: str
    number: int
    body: Any


def dump(kind: str, by: str, number: int, body: object) -> bytes:
    return orjson.dumps([kind, by, number, body])


def load(payload: bytes) -> Message:
    """The message.

    Raises:
        ValueError: it is none.
    """
    message = orjson.loads(payload)
    _check(isinstance(message, list) and len(message) == 4)
    kind, by, number, body = message
    _check(isinstance(kind, str) and isinstance(by, str) and type(number) is int)
    return Message(kind, by, number, body)


def dump_questions(questions: Iterable[Question]) -> list[object]:
    return [[name, is_pattern, *start, *end] for name, is_pattern, start, end in questions]


def load_questions(body: Any) -> list[Question]:
    """The questions in a body.

    Raises:
        ValueError: they are none, or too many.
    """
    _check(isinstance(body, list) and len(body) <= MAX_QUESTIONS)
    questions = []
    for each in body:
        _check(isinstance(each, list) and len(each) == 10 and isinstance(each[0], str) and type(each[1]) is bool)
        questions.append(Question(each[0], each[1], *load_span(each[2:])))
    return questions


def load_span(values: Any) -> tuple[Position, Position]:
    """Where something begins and ends.

    Raises:
        ValueError: it is something else.
    """
    _check(isinstance(values, list) and len(values) == 8)
    return _load_position(values[:4]), _load_position(values[4:])


def _load_position(values: list[Any]) -> Position:
    _check(all(type(value) is int for value in values))
    return Position(*values)


def dump_ranges(known: Known | None) -> object:
    """What a worker knows, without the events."""
    if known is None:
        return None
    holes = [[*each.position, *each.end] for each in known.kept if isinstance(each, Hole)]
    return [*known.start, *known.end, holes]


def load_ranges(value: Any) -> Known | None:
    """What `dump_ranges` has made.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        return None
    _check(isinstance(value, list) and len(value) == 9 and isinstance(value[8], list))
    holes = [Hole(*load_span(each), UNKNOWN) for each in value[8]]
    return Known(*load_span(value[:8]), holes)


def dump_known(known: Known) -> object:
    """What a worker knows, with the events."""
    return [*known.start, *known.end, [_dump_kept(each) for each in known.kept]]


def load_known(value: Any) -> Known:
    """What `dump_known` has made.

    Raises:
        ValueError: it is something else.
    """
    _check(isinstance(value, list) and len(value) == 9 and isinstance(value[8], list))
    return Known(*load_span(value[:8]), [_load_kept(each) for each in value[8]])


def _dump_kept(kept: Kept) -> Sequence[object]:
    if isinstance(kept, Hole):
        return [*kept.position, *kept.end]
    event = kept.event
    comment = event.comment.decode() if event.comment is not None else None
    return [*kept.position, kept.channel, event.data.decode(), event.type, event.own_id, event.retry, comment]


def _load_kept(value: Any) -> Kept:
    _check(isinstance(value, list))
    if len(value) == 8:
        return Hole(*load_span(value), UNKNOWN)
    _check(len(value) == 10)
    channel, data, type_, own_id, retry, comment = value[4:]
    _check(isinstance(channel, str) and isinstance(data, str))
    _check(all(isinstance(text, str | None) for text in (type_, own_id, comment)))
    _check(all(text is None or is_safe_in_field(text) for text in (channel, type_, own_id)))
    _check(retry is None or (type(retry) is int and retry >= 0))
    event = Event(data.encode(), type_, own_id, retry, comment.encode() if comment is not None else None)
    return Entry(_load_position(value[:4]), channel, event)


def _check(condition: bool) -> None:
    if not condition:
        raise ValueError("it is made up in another way")
