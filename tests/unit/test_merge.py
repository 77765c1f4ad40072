"""What several workers know together, and what Redis adds: nothing is claimed that nobody knows."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.memory.durables import fill, reason_of
from gateway.memory.entry import Entry, Kept, clip, in_order
from gateway.memory.event import Event
from gateway.memory.hole import LOST, UNKNOWN, Hole
from gateway.memory.merge import Known, merge, unknown_parts
from gateway.memory.position import LAST, ZERO, Position

END = 40


def at(count: int) -> Position:
    return Position(1, 1, 0, count)


ALL = [Entry(at(count), "news", Event(b"%d" % count)) for count in range(1, END + 1)]


def entry(count: int) -> Entry:
    return ALL[count - 1]


@st.composite
def known(draw: st.DrawFn) -> Known:
    """What a worker knows: a range with holes in it, and all events outside them."""
    begin = draw(st.integers(0, END - 1))
    to = draw(st.integers(begin + 1, END))
    kept: list[Kept] = list(clip(ALL, at(begin), at(to)))
    edges = sorted(draw(st.lists(st.integers(begin, to), max_size=4, unique=True)))
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        kept = [each for each in kept if not at(start) < each.position <= at(end)]
        kept.append(Hole(at(start), at(end), LOST))
    return Known(at(begin), at(to), in_order(kept))


def covered(of: Known) -> set[int]:
    """The messages it knows."""
    holes = [each for each in of.kept if isinstance(each, Hole)]
    inside = [count for count in range(1, END + 1) if of.start < at(count) <= of.end]
    return {count for count in inside if not any(hole.position < at(count) <= hole.end for hole in holes)}


@given(st.lists(known(), max_size=5), st.integers(0, END - 1), st.data())
def test_what_is_known_together(answers: list[Known], start: int, data: st.DataObject) -> None:
    end = data.draw(st.integers(start + 1, END))
    merged = merge(at(start), at(end), answers)
    together = set().union(*[covered(answer) for answer in answers]) & set(range(start + 1, end + 1))
    assert [each.position[3] for each in merged if isinstance(each, Entry)] == sorted(together)
    holes = [each for each in merged if isinstance(each, Hole)]
    assert {each.kind for each in holes} <= {UNKNOWN}
    missing = {count for count in range(1, END + 1) for hole in holes if hole.position < at(count) <= hole.end}
    assert missing == set(range(start + 1, end + 1)) - together
    assert merged == in_order(merged)
    assert all(at(start) <= hole.position < hole.end <= at(end) for hole in holes)


def test_nobody_knows_anything() -> None:
    assert merge(at(1), at(5), []) == [Hole(at(1), at(5), UNKNOWN)]
    assert merge(ZERO, LAST, [Known(at(2), at(3), [entry(3)])]) == [
        Hole(ZERO, at(2), UNKNOWN),
        entry(3),
        Hole(at(3), LAST, UNKNOWN),
    ]


def test_parts_that_nobody_knows() -> None:
    assert unknown_parts(at(0), at(9), [(at(4), at(6)), (at(0), at(2)), (at(5), at(8))]) == [
        Hole(at(2), at(4), UNKNOWN),
        Hole(at(8), at(9), UNKNOWN),
    ]
    assert unknown_parts(at(3), at(5), [(at(0), at(9))]) == []


def test_what_redis_keeps_comes_behind_its_gap() -> None:
    hole = Hole(at(1), at(5), UNKNOWN)
    durable = Entry(Position(1, 1, 2), "news", Event(b""))
    found: list[Kept] = [entry(1), hole, entry(6)]
    assert fill(found, {hole: ([durable], True, "not_kept")}, durable_only=False) == [
        entry(1),
        Hole(at(1), at(5), "not_kept"),
        entry(6),
        durable,
    ]
    assert fill(found, {hole: ([durable], True, "")}, durable_only=True) == [entry(1), entry(6), durable]
    assert Hole(at(1), at(5), "trimmed") in fill(found, {hole: ([durable], False, "trimmed")}, durable_only=True)


def test_reasons() -> None:
    assert reason_of(Hole(at(1), at(5), UNKNOWN), False) == "not_kept"
    assert reason_of(Hole(at(1), at(5), UNKNOWN), True) == "trimmed"
    assert reason_of(Hole(at(1), at(5), LOST), False) == "redis_lost"
    assert reason_of(Hole(at(1), Position(2, 1), LOST), False) == "redis_restarted"
    assert reason_of(Hole(ZERO, at(1), UNKNOWN), False) == "not_kept", "from the first there is no generation before"
