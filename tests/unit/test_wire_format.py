"""What workers send each other comes back as it was; what they would not send is refused."""

from typing import Any

import pytest

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


def test_questions_come_back() -> None:
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
