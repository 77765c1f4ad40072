"""What workers send each other: it comes back as it was, and anything else is refused in one way."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.wire import (
    MAX_QUESTIONS,
    Message,
    Question,
    dump,
    dump_known,
    dump_questions,
    dump_ranges,
    load,
    load_known,
    load_questions,
    load_ranges,
    load_span,
)
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.hole import LOST, UNKNOWN, Hole
from gateway.memory.merge import Known
from gateway.memory.position import Position

_NUMBERS = st.integers(0, 1 << 60)
_POSITIONS = st.builds(Position, _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS)
_TEXTS = st.text(max_size=5)
_LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=5)
_COMMENTS = st.none() | _TEXTS.map(str.encode)
_EVENTS = st.builds(
    Event, _TEXTS.map(str.encode), st.none() | _LINES, st.none() | _LINES, st.none() | _NUMBERS, _COMMENTS
)
_HOLES = st.builds(Hole, _POSITIONS, _POSITIONS, st.just(UNKNOWN))
_ENTRIES = st.builds(Entry, _POSITIONS, _LINES, _EVENTS)
_KNOWN = st.builds(Known, _POSITIONS, _POSITIONS, st.lists(_HOLES | _ENTRIES, max_size=3))
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=30,
)
_ALMOST = st.lists(st.lists(_NUMBERS | _JSON, min_size=8, max_size=10) | _JSON, max_size=2).map(
    lambda kept: [*range(8), kept]
)
"""Two positions and something, as an answer has them."""


def _sent(value: object) -> Any:
    return orjson.loads(orjson.dumps(value))


def _fields(known: Known) -> list[object]:
    return [
        (*each[:2], *(getattr(each.event, name) for name in Event.__slots__)) if isinstance(each, Entry) else each
        for each in known.kept
    ]


@given(_KNOWN)
def test_what_a_worker_knows_comes_back(known: Known) -> None:
    loaded = load_known(_sent(dump_known(known)))
    assert (loaded[:2], _fields(loaded)) == (known[:2], _fields(known))
    ranges = load_ranges(_sent(dump_ranges(known)))
    assert ranges == Known(known.start, known.end, [each for each in known.kept if isinstance(each, Hole)])


@given(st.lists(st.builds(Question, _TEXTS, st.booleans(), _POSITIONS, _POSITIONS), max_size=3))
def test_questions_come_back(questions: list[Question]) -> None:
    assert load_questions(_sent(dump_questions(questions))) == questions


@pytest.mark.parametrize("loader", [load_questions, load_ranges, load_known, load_span])
@given(value=_JSON | _ALMOST)
def test_anything_else_is_refused(loader: Any, value: Any) -> None:
    """A hole that is a number was a TypeError, which cost the streams that waited for the answer."""
    with contextlib.suppress(ValueError):
        loader(_sent(value))


@given(st.binary(max_size=40) | _JSON.map(orjson.dumps))
def test_anything_else_is_no_message(payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        load(payload)


@pytest.mark.parametrize(
    "fields",
    [
        ["a\nb", "", None, None, None, None],
        ["a", "", "type\ndata: forged\n\n", None, None, None],
        ["a", "", None, "7\rid: 8", None, None],
        ["a", "", None, None, -1, None],
        ["a", "", None, None, True, None],
    ],
    ids=["channel", "type", "id", "negative time", "no time"],
)
def test_no_worker_forges_a_field(fields: list[object]) -> None:
    """One that is older or broken may send what this one would not deliver."""
    with pytest.raises(ValueError, match="another way"):
        load_known([*range(8), [[1, 1, 0, 1, *fields]]])


# -- examples


def at(count: int) -> Position:
    return Position(1, 2, 3, count)


KNOWN = Known(
    at(1),
    at(9),
    [
        Entry(at(2), "news", Event("grüße".encode(), "greeting", "id-1", 3000, b"said")),
        Hole(at(3), at(4), LOST),
        Entry(at(5), "news", Event(b"plain")),
    ],
)


def fields(entry: Any) -> tuple[object, ...]:
    event = entry.event
    return entry.position, entry.channel, event.data, event.type, event.own_id, event.retry, event.comment


def test_messages_come_back() -> None:
    assert load(dump("ask", "worker", 7, [1, "x"])) == Message("ask", "worker", 7, [1, "x"])


@pytest.mark.parametrize(
    "payload",
    [
        b"{}", b'"ask"', b"[]", b"not json",
        b'["ask", "worker", 7]', b'["ask", "worker", 7, [], 1]',
        b'[1, "worker", 7, []]', b'["ask", 1, 7, []]', b'["ask", "worker", "7", []]', b'["ask", "worker", null, []]',
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        load(payload)


def test_the_questions_of_an_example_come_back() -> None:
    questions = [Question("news", False, at(1), at(2)), Question("n*", True, at(0), Position(4, 5, 6, 7))]
    assert load_questions(dump_questions(questions)) == questions


def test_only_so_many_questions_are_in_one_message() -> None:
    question = Question("news", False, at(1), at(2))
    assert len(load_questions(dump_questions([question] * MAX_QUESTIONS))) == MAX_QUESTIONS
    with pytest.raises(ValueError):
        load_questions(dump_questions([question] * (MAX_QUESTIONS + 1)))


@pytest.mark.parametrize(
    "question",
    [
        "news",
        ["news", False, 1, 2, 3, 4, 5, 6, 7],
        ["news", False, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, False, 1, 2, 3, 4, 5, 6, 7, 8],
        ["news", 0, 1, 2, 3, 4, 5, 6, 7, 8],
        ["news", False, "1", 2, 3, 4, 5, 6, 7, 8],
        ["news", False, 1, 2, 3, 4, 5, 6, 7, 8.0],
        ["news", False, True, 2, 3, 4, 5, 6, 7, 8],
    ],
)
def test_what_is_no_question_is_refused(question: object) -> None:
    with pytest.raises(ValueError):
        load_questions([question])
    with pytest.raises(ValueError):
        load_questions(question)


@pytest.mark.parametrize("values", [None, "1234", [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, None]])
def test_what_is_no_position_is_refused(values: object) -> None:
    with pytest.raises(ValueError):
        load_span([*values, 1, 2, 3, 4] if isinstance(values, list) else values)


def test_what_a_worker_knows_comes_back_without_the_events() -> None:
    assert load_ranges(dump_ranges(KNOWN)) == Known(at(1), at(9), [Hole(at(3), at(4), UNKNOWN)])
    assert load_ranges(dump_ranges(None)) is None


def test_what_a_worker_knows_comes_back_with_the_events() -> None:
    start, end, kept = load_known(dump_known(KNOWN))
    assert (start, end) == (at(1), at(9))
    assert kept[1] == Hole(at(3), at(4), UNKNOWN), "the asker finds out for itself why it is missing"
    assert [fields(each) for each in kept[::2]] == [fields(each) for each in KNOWN.kept[::2]]


@pytest.mark.parametrize(
    "known",
    [
        1,
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 3, 4, 5, 6, 7, 8, [], 9],
        [1, 2, 3, 4, 5, 6, 7, 8, "holes"],
        [1, 2, 3, "4", 5, 6, 7, 8, []],
        [1, 2, 3, 4, 5, 6, 7, "8", []],
    ],
)
def test_what_nobody_can_know_is_refused(known: object) -> None:
    with pytest.raises(ValueError):
        load_ranges(known)
    with pytest.raises(ValueError):
        load_known(known)


@pytest.mark.parametrize(
    "kept",
    [
        "hole",
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4, 5, 6, 7, None],
        [1, 2, 3, 4, "news", "data", None, None, None],
        [1, 2, 3, 4, "news", "data", None, None, None, None, None],
        [1, 2, 3, None, "news", "data", None, None, None, None],
        [1, 2, 3, 4, None, "data", None, None, None, None],
        [1, 2, 3, 4, "news", None, None, None, None, None],
        [1, 2, 3, 4, "news", "data", 1, None, None, None],
        [1, 2, 3, 4, "news", "data", None, 1, None, None],
        [1, 2, 3, 4, "news", "data", None, None, "1", None],
        [1, 2, 3, 4, "news", "data", None, None, None, 1],
    ],
)
def test_what_nobody_can_keep_is_refused(kept: object) -> None:
    with pytest.raises(ValueError):
        load_known([1, 2, 3, 4, 5, 6, 7, 8, [kept]])
