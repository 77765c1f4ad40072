"""Durable history is read in portions, newest first over all topics, within one budget."""

from functools import cache

import pytest

from gateway.broker import reading as module
from gateway.broker.library import BEGINNING, Kept, Newest, Place, Wanted
from gateway.broker.library import Position as Stored
from gateway.broker.reading import Reading
from gateway.broker.redis_history import _placed
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.settings import Settings

HISTORY = History(Settings(), lambda: 0.0)
END = Position(7, 100, 0, 3)


def topic(name: str) -> Topic:
    return Topic(name, "*" in name, HISTORY.ring())


def stored(number: int, size: int = 1) -> Kept:
    return Kept(Stored(7, 1, number), None, b"x" * size)


@cache  # events have no equality of their own
def entry(number: int) -> Entry:
    return Entry(Position(7, 1, number), "news", Event(b""))


def reading(*topics: Topic, count: int = 0, events: int = 1000, size: int = 1_000_000) -> Reading:
    return Reading(dict.fromkeys(topics, END), count, events, size)


def test_one_channel_in_one_portion() -> None:
    news = topic("news")
    read = reading(news, count=5)
    read.add(news, ["news"])
    portion = read.portion()
    assert portion is not None
    wanted = Wanted("news", 0, Place(7, 100))
    assert portion == ([wanted], BEGINNING, 250, 262_144)
    assert read.counts == [5]
    read.take(wanted, Newest([stored(1), stored(2)], None), [entry(1), entry(2)])
    assert read.counts == [3]
    assert read.portion() is None
    assert read.result("too_many") == ({news: [entry(1), entry(2)]}, {})


def test_what_is_left_of_a_channel_is_read_next() -> None:
    news = topic("news")
    read = reading(news)
    read.add(news, ["news"])
    wanted = Wanted("news", 0, Place(7, 100))
    assert read.portion() is not None
    read.take(wanted, Newest([stored(5)], Place(7, 4)), [entry(5)])
    portion = read.portion()
    assert portion is not None
    assert portion.wanted == [Wanted("news", 0, Place(7, 4))]
    assert read.result("too_many").entries == {news: [entry(5)]}
    assert read.result("too_many") == ({news: [entry(5)]}, {news: "too_many"}), "there is a rest"
    read.take(portion.wanted[0], Newest([stored(3), stored(4)], None), [entry(3), entry(4)])
    assert read.portion() is None
    assert read.result("too_many") == ({news: [entry(3), entry(4), entry(5)]}, {})


@pytest.mark.parametrize(("events", "size"), [(3, 1000), (1000, 30), (2, 1000), (1000, 20)])
def test_one_budget_for_all(events: int, size: int) -> None:
    a, b = topic("a"), topic("b")
    read = reading(a, b, events=events, size=size)
    read.add(a, ["a"])
    read.add(b, ["b"])
    portion = read.portion()
    assert portion is not None
    assert (portion.events, portion.size) == (min(events, 250), size)
    for wanted in portion.wanted:
        read.take(wanted, Newest([stored(9, 10)], Place(7, 8)), [entry(9)])
    left = read.portion()
    if events > 2 and size > 20:
        assert left is not None
        assert (left.events, left.size) == (min(events - 2, 250), size - 20)
    else:
        assert left is None, "it is used up"
    assert read.result("too_many")[1] == {a: "too_many", b: "too_many"}


def test_as_many_of_each_topic_as_are_wanted() -> None:
    a, b = topic("a*"), topic("b")
    read = reading(a, b, count=2)
    read.add(a, ["a1", "a2"])
    read.add(b, ["b"])
    portion = read.portion()
    assert portion is not None
    assert [each.channel for each in portion.wanted] == ["a1", "a2", "b"]
    assert [each.group for each in portion.wanted] == [0, 0, 1]
    a1, a2, of_b = portion.wanted
    read.take(a1, Newest([stored(4)], Place(7, 2)), [entry(4)])
    read.take(a2, Newest([stored(3)], Place(7, 1)), [entry(3)])
    read.take(of_b, Newest([stored(9)], Place(7, 8)), [entry(9)])
    assert read.counts == [0, 1]
    rest = read.portion()
    assert rest is not None
    assert [each.channel for each in rest.wanted] == ["b"], "of the first topic there are enough"
    entries, unread = read.result("too_many")
    assert entries == {a: [entry(3), entry(4)], b: [entry(9)]}
    assert unread == {b: "too_many"}


def test_a_channel_is_read_for_the_first_topic_only() -> None:
    a, pattern = topic("a1"), topic("a*")
    read = reading(a, pattern)
    read.add(a, ["a1"])
    read.add(pattern, ["a1", "a2"])
    portion = read.portion()
    assert portion is not None
    assert [(each.channel, each.group) for each in portion.wanted] == [("a1", 0), ("a2", 1)]


def test_a_topic_that_was_not_reached_is_cut_off() -> None:
    a, b = topic("a"), topic("b")
    read = reading(a, b)
    read.add(a, [])
    assert read.result("history_unavailable") == ({a: [], b: []}, {b: "history_unavailable"})


def test_of_patterns_so_many_channels_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PATTERN_CHANNELS", 2)
    a, b, channel = topic("a*"), topic("b*"), topic("c")
    read = reading(a, b, channel)
    read.add(a, ["a1", "a2"])
    read.add(b, ["b1", "b2"])
    read.add(channel, ["c"])
    portion = read.portion()
    assert portion is not None
    assert [each.channel for each in portion.wanted] == ["a1", "a2", "c"]
    for wanted in portion.wanted:
        read.take(wanted, Newest([], None), [])
    assert read.result("too_many")[1] == {b: "too_many"}


def test_of_many_channels_those_with_the_newest_messages_are_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHANNELS_PER_READ", 2)
    pattern = topic("a*")
    read = reading(pattern)
    read.add(pattern, ["a1", "a2", "a3"])
    looked_at: list[str] = []
    for expected in (["a1", "a2"], ["a3"]):
        look = read.portion()
        assert look is not None
        assert (look.floor, look.events, look.size) == (BEGINNING, 0, 0), "nothing is read yet"
        assert [each.channel for each in look.wanted] == expected
        for wanted in look.wanted:
            looked_at.append(wanted.channel)
            read.take(wanted, Newest([], Place(7, {"a1": 10, "a2": 30, "a3": 20}[wanted.channel])), [])
    portion = read.portion()
    assert portion is not None
    assert [each.channel for each in portion.wanted] == ["a2", "a3"]
    assert portion.floor == Place(7, 10), "down to where the next channel's newest is"


def test_the_end_is_the_newest_of_all_ends() -> None:
    a, b = topic("a"), topic("b")
    read = Reading({a: Position(7, 5), b: Position(7, 5, 9)}, 0, 10, 10)
    read.add(a, ["a"])
    portion = read.portion()
    assert portion is not None
    assert portion.wanted == [Wanted("a", 0, Place(7, 9))]
    uncounted = Reading({a: Position(0, 0)}, 0, 10, 10)
    uncounted.add(a, ["a"])
    portion = uncounted.portion()
    assert portion is not None
    assert portion.wanted == [Wanted("a", 0, BEGINNING)], "without a limit"


def test_what_the_previous_version_stored_without_ticks_is_put_in_its_place() -> None:
    positions = [Position(7, 0, 11), Position(7, 12, 13), Position(7, 0, 14), Position(8, 0, 2)]
    entries = [Entry(position, "news", Event(b"")) for position in positions]
    assert [each.position for each in _placed(entries, Position(7, 10))] == [
        Position(7, 10, 11),
        Position(7, 12, 13),
        Position(7, 12, 14),
        Position(8, 0, 2),
    ]
