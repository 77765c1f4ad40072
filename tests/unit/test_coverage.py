"""Whom a worker asks for events, once it knows who knows which part."""

import pytest

from gateway.broker.coverage import Coverage, enough, newest_within, ranges_of
from gateway.broker.peers import _heir
from gateway.broker.wire import Question, dump_ranges
from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.merge import Known
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.settings import Settings


def at(count: int) -> Position:
    return Position(1, 1, 0, count)


def known(start: int, end: int, *holes: tuple[int, int]) -> Known:
    return Known(at(start), at(end), [Hole(at(begin), at(to), UNKNOWN) for begin, to in holes])


def question(start: int, end: int) -> Question:
    return Question("news", False, at(start), at(end))


def test_what_is_known_between_holes() -> None:
    assert ranges_of(known(0, 9)) == [(at(0), at(9))]
    assert ranges_of(known(0, 9, (2, 4), (6, 7))) == [(at(0), at(2)), (at(4), at(6)), (at(7), at(9))]
    assert ranges_of(known(0, 9, (2, 8), (3, 4))) == [(at(0), at(2)), (at(8), at(3)), (at(8), at(9))], (
        "a hole within a hole opens nothing"
    )


def test_one_worker_that_knows_everything_isenough() -> None:
    workers = {"half": known(0, 5), "holed": known(0, 9, (3, 4)), "whole": known(0, 9), "other": known(0, 9)}
    assert enough(question(0, 9), workers) == ["whole"]


def test_workers_that_together_know_everything_areenough() -> None:
    workers = {"first": known(0, 5), "less": known(1, 4), "last": known(5, 9)}
    assert enough(question(0, 9), workers) == ["first", "last"]


def test_whoever_knows_a_part_is_asked_even_if_the_rest_is_lost() -> None:
    assert enough(question(0, 9), {"none": known(10, 12), "middle": known(3, 4)}) == ["middle"]
    assert enough(question(0, 9), {}) == []


def test_nobody_waits_once_everything_is_known() -> None:
    coverage = Coverage([question(0, 9), question(5, 6)])
    assert not coverage.add("one", [dump_ranges(known(0, 5)), dump_ranges(None)])
    assert not coverage.add("two", [dump_ranges(known(5, 9)), dump_ranges(None)])
    assert coverage.add("three", [dump_ranges(None), dump_ranges(known(5, 6))])
    assert coverage.known["one"] == [known(0, 5), None]
    assert list(coverage.known) == ["one", "two", "three"]


@pytest.mark.parametrize("answer", [[], [None, None], ["ranges"]])
def test_an_answer_to_something_else_counts_for_nothing(answer: list[object]) -> None:
    coverage = Coverage([question(0, 9)])
    assert not coverage.add("one", answer)
    assert coverage.known == {}
    assert coverage.add("one", [dump_ranges(known(0, 9))])


def entry(count: int, size: int) -> Entry:
    return Entry(at(count), "news", Event(b"x" * size))


@pytest.mark.parametrize(("room", "told"), [(0, 0), (9, 0), (10, 1), (29, 1), (30, 2), (59, 2), (60, 4), (99, 4)])
def test_the_newest_are_told_as_far_as_there_is_room(room: int, told: int) -> None:
    kept: list[Kept] = [entry(1, 30), Hole(at(1), at(2), UNKNOWN), entry(3, 20), entry(4, 10)]
    (start, end, given), used = newest_within(Known(at(0), at(9), kept), room)
    assert (start, end) == (at(0), at(9))
    whole = {0: [], 1: kept[3:], 2: kept[1:], 4: kept}[told]
    cut = {
        0: [Hole(at(0), at(4), UNKNOWN)],
        1: [Hole(at(0), at(3), UNKNOWN)],
        2: [Hole(at(0), at(1), UNKNOWN)],
        4: [],
    }
    assert given == cut[told] + whole
    assert used == sum(each.event.size for each in whole if isinstance(each, Entry))


def test_each_topic_has_an_heir_of_its_own_which_all_agree_on() -> None:
    history = History(Settings(), lambda: 0.0)
    topics = [Topic(f"topic{number}", False, history.ring()) for number in range(100)]
    workers = ["one", "two", "three"]
    heirs = [_heir(workers, topic) for topic in topics]
    assert heirs == [_heir(workers[::-1], topic) for topic in topics]
    assert all(heirs.count(worker) > 15 for worker in workers)
    without = [_heir(["one", "two"], topic) for topic in topics]
    assert all(before in (now, "three") for before, now in zip(heirs, without, strict=True)), (
        "only what the third had moves"
    )
