"""What workers send each other: it comes back as it was, and anything else is refused in one way."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.wire import (
    Question,
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
from gateway.memory.hole import UNKNOWN, Hole
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
