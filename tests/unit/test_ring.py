"""What a ring keeps, what it says is missing, and what it learns."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.hole import LOST, UNKNOWN, Hole
from gateway.memory.position import ZERO, Position
from gateway.memory.ring import Limits, Ring, size_of
from gateway.settings import Settings


def at(tick: int, count: int = 0, durable: int = 0) -> Position:
    return Position(1, tick, durable, count)


def entry(position: Position, size: int = 1, own_id: str | None = None) -> Entry:
    return Entry(position, "news", Event(b"x" * size, own_id=own_id))


def ring(events: int = 1000, bytes_: int = 1_000_000, waiting: int = 0) -> Ring:
    made = Ring(Limits(events, bytes_, waiting, bytes_))
    made.begin(at(1))
    return made


def last(kept: Ring, count: int) -> list[Entry]:
    """Its newest events, oldest first."""
    return list(islice(kept.newest(), count))[::-1]


def test_what_came_after_a_position() -> None:
    kept = ring()
    entries = [entry(at(1, 1)), entry(at(1, 2)), entry(at(2, 0, 3)), entry(at(2, 1, 3))]
    for each in entries:
        kept.append(each)
    assert kept.after(at(1)) == entries
    assert kept.after(at(1, 2)) == entries[2:]
    assert kept.after(at(2, 1, 3)) == []
    assert kept.after(at(0, 5)) == [Hole(at(0, 5), at(1), UNKNOWN), *entries]
    assert kept.between(at(1, 1), at(2, 0, 3)) == entries[1:3]
    assert last(kept, 2) == entries[2:]


def test_how_much_came_after_a_position_without_looking_at_it() -> None:
    kept = ring()
    assert not kept.has_more_than(0, ZERO)
    for number in range(1, 11):
        kept.append(entry(at(1, number)))
    for start, count in ((at(1, 0), 10), (at(1, 4), 6), (at(1, 9), 1), (at(1, 10), 0), (at(2), 0), (ZERO, 10)):
        assert not kept.has_more_than(count, start)
        assert kept.has_more_than(count - 1, start) or not count


def test_what_is_forgotten_is_an_unknown_hole() -> None:
    kept = ring(events=2)
    for count in range(1, 5):
        kept.append(entry(at(1, count)))
    assert kept.after(at(1)) == [Hole(at(1), at(1, 2), UNKNOWN), *last(kept, 2)]
    assert kept.after(at(1, 2)) == last(kept, 2)
    assert len(kept) == 2


def test_holes_are_clipped_and_longer_than_what_follows() -> None:
    """A durable message that Redis kept lies within the hole, and the hole ends after it."""
    kept = ring()
    durable = entry(at(2, 0, 3))
    kept.append(Hole(at(1, 4), at(5), LOST))
    kept.append(durable)
    kept.append(entry(at(5, 1)))
    assert kept.after(at(2)) == [Hole(at(2), at(5), LOST), durable, last(kept, 1)[0]]
    assert kept.after(at(2, 0, 3)) == [Hole(at(2, 0, 3), at(5), LOST), last(kept, 1)[0]]
    assert kept.after(at(5)) == last(kept, 1)


def test_an_answer_replaces_the_hole_it_is_about() -> None:
    kept = ring()
    first, last = entry(at(1, 1)), entry(at(5, 1))
    kept.append(first)
    kept.append(Hole(at(1, 1), at(5), LOST))
    kept.append(last)
    found: list[Kept] = [entry(at(1, 2)), Hole(at(1, 2), at(3), "not_kept"), entry(at(4, 1))]
    kept.learn(at(1, 1), at(5), found)
    assert kept.after(at(1)) == [first, *found, last]
    kept.learn(at(1, 2), at(3), [entry(at(2, 0, 2))])
    assert kept.after(at(1)) == [first, *found, last], "a reported hole is not asked about again"


def test_an_answer_about_a_part_of_a_hole_leaves_the_rest() -> None:
    kept = ring()
    kept.append(Hole(at(1), at(9), LOST))
    kept.learn(at(3), at(5), [entry(at(4, 1))])
    holes = [each for each in kept.after(at(1)) if isinstance(each, Hole)]
    assert holes == [Hole(at(1), at(3), LOST), Hole(at(5), at(9), LOST)]


def test_an_answer_about_what_came_before_goes_in_front() -> None:
    kept = Ring(Limits(2, 1000, 0, 0))
    kept.begin(at(5))
    kept.learn(at(3), at(4), [entry(at(3, 1))])
    assert kept.since == at(5), "it doesn't reach up to the ring"
    kept.learn(at(3), at(5), [entry(at(3, 1)), entry(at(3, 2)), entry(at(3, 3))])
    assert kept.since == at(5), "it doesn't fit"
    kept.learn(at(3), at(5), [entry(at(3, 1))])
    assert kept.since == at(3)
    assert kept.after(at(3)) == last(kept, 1)


def test_nobody_claims_to_know_everything_from_the_beginning() -> None:
    kept = ring()
    kept.learn(ZERO, at(1), [Hole(ZERO, at(0, 7), "not_kept"), entry(at(0, 8))])
    assert kept.since == at(0, 7)
    assert kept.after(at(0, 7)) == last(kept, 1)


def test_what_is_waited_for_stays() -> None:
    kept = ring(events=0, waiting=3)
    kept.append(entry(at(1, 1)))
    assert len(kept) == 0
    kept.pins += 1
    for count in range(2, 7):
        kept.append(entry(at(1, count)))
    assert len(kept) == 3
    kept.pins -= 1
    kept.trim()
    assert len(kept) == 0
    assert kept.since == at(1, 6)


def test_what_was_there_before_somebody_waited_stays_too() -> None:
    kept = ring(events=2, waiting=3)
    for count in range(1, 4):
        kept.append(entry(at(1, count)))
    kept.pins += 1
    for count in range(4, 7):
        kept.append(entry(at(1, count)))
    assert kept.since == at(1, 1)
    kept.append(entry(at(1, 7)))
    assert kept.since == at(1, 2)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=40), st.integers(0, 6), st.integers(500, 3000)
)
def test_sizes_are_counted(sizes: list[tuple[int, bool]], events: int, room: int) -> None:
    counted = [0, 0]

    def resized(size: int, count: int) -> None:
        counted[0] += size
        counted[1] += count

    kept = Ring(Limits(events, room, 0, 0), resized)
    kept.begin(at(0))
    for tick, (size, is_hole) in enumerate(sizes, 1):
        kept.append(Hole(at(tick - 1, 9), at(tick), LOST) if is_hole else entry(at(tick, 1), size))
        held = kept.between(at(0), at(10**6))
        assert kept.bytes == counted[0] == sum(map(size_of, held))
        assert len(kept) == counted[1] == len(held) <= events
        assert kept.bytes <= room or len(kept) == 1
    kept.clear()
    assert counted == [0, 0]
    assert kept.since is None


def test_all_rings_together_are_bounded() -> None:
    now = 0.0
    history = History(Settings(history_total_bytes=3000, history_age=10), lambda: now)
    rings = [history.ring() for _ in range(3)]
    for each in rings:
        each.begin(at(1))
    for count in range(1, 50):
        history.append(rings[count % 3], entry(at(1, count), 100))
        assert history.bytes <= 3000
        assert history.entries == sum(map(len, rings))
    now = 20.0
    history.sweep()
    assert [len(each) for each in rings] == [1, 1, 1], (
        "whoever has seen the newest has missed nothing, however old it is"
    )
    assert rings[0].after(at(1, 48)) == []


def test_what_is_kept_however_old_it_is_makes_room_before_anything_newer() -> None:
    """The newest of each quiet channel stays; many of them must not leave the busy ones without a memory."""
    now = 0.0
    history = History(Settings(history_total_bytes=10_000, history_age=10), lambda: now)
    quiet = [history.ring() for _ in range(12)]
    busy = history.ring()
    for each in [*quiet, busy]:
        each.begin(at(1))
    for number, each in enumerate(quiet):
        history.append(each, entry(at(1, 1), 500))
        now += 1
        if number == 10:
            now += 100
            history.sweep()
    assert [len(each) for each in quiet] == [0, 0, *[1] * 10]
    for number in range(1, 6):
        history.append(busy, entry(at(2, number), 500))
        assert len(busy) == number
        assert history.bytes <= 10_000
    assert [len(each) for each in quiet] == [*[0] * 7, *[1] * 5]


def test_of_all_rings_the_oldest_entry_is_the_first_to_go() -> None:
    history = History(Settings(history_total_bytes=6000, history_age=10), lambda: 0.0)
    rings = [history.ring() for _ in range(3)]
    for each in rings:
        each.begin(at(1))
    for place in (0, 0, 1, 2, 1, 0):
        history.append(rings[place], entry(at(1, len(rings[place]) + 1), 500))
    assert history.bytes == 6000, "that many are allowed"
    for place, left in ((2, [2, 2, 2]), (2, [1, 2, 3]), (2, [1, 1, 4]), (1, [1, 2, 3]), (1, [1, 2, 3])):
        history.append(rings[place], entry(at(2, place + history.entries), 500))
        assert [len(each) for each in rings] == left
        assert history.bytes == 6000


def test_what_was_learned_from_others_has_the_same_limits() -> None:
    """A worker that takes over the channels of another is told thousands of events."""
    now = 0.0
    history = History(Settings(history_total_bytes=10_000, history_age=10), lambda: now)
    rings = [history.ring() for _ in range(5)]
    for each in rings:
        each.begin(at(9))
        each.learn(at(1), at(9), [entry(at(2, count), 500) for count in range(1, 6)])
        assert history.bytes <= 10_000
    assert [len(each) for each in rings] == [0, 0, 0, 5, 5]
    history.append(rings[0], Hole(at(9), at(12), LOST))
    history.append(rings[0], entry(at(12, 1), 500))
    rings[0].learn(at(9), at(12), [entry(at(10, 1), 500)])
    assert [len(each) for each in rings] == [2, 0, 0, 3, 5]
    now = 11
    history.sweep()
    assert [len(each) for each in rings] == [1, 0, 0, 1, 1]


def test_an_entry_is_kept_for_as_long_as_it_may_be() -> None:
    now = 0.0
    history = History(Settings(history_age=10), lambda: now)
    rings = [history.ring() for _ in range(2)]
    for each in rings:
        each.begin(at(1))
    for number in range(1, 4):
        for each in rings:
            history.append(each, entry(at(1, number)))
        now += 1
    now = 10
    history.sweep()
    assert [len(each) for each in rings] == [3, 3]
    now = 10.5
    history.append(rings[0], entry(at(1, 4)))
    assert [len(each) for each in rings] == [3, 2], "it is forgotten whatever comes, on any channel"
    now = 100
    history.sweep()
    assert [last(each, 9) for each in rings] == [
        [entry_at] for entry_at in (last(rings[0], 1)[0], last(rings[1], 1)[0])
    ]


def test_what_is_noted_of_entries_that_are_gone_is_bounded() -> None:
    now = 0.0
    history = History(Settings(history_events=2, history_age=10), lambda: now)
    rings = [history.ring() for _ in range(3)]
    for each in rings:
        each.begin(at(1))
    for number in range(1, 6000):
        now += 11 if number > 3000 else 0
        history.append(rings[number % 3], entry(at(1, number)))
        history.sweep()
    assert len(history._order) + len(history._old) < 2100
    assert history.entries == 4, "of each the newest, and what was the newest until just now"


@pytest.mark.parametrize(("pins", "bytes_"), [(0, 3000), (1, 5000)])
def test_a_ring_is_exactly_as_large_as_it_may_be(pins: int, bytes_: int) -> None:
    kept = Ring(Limits(100, 3000, 100, 2000))
    kept.begin(at(1))
    kept.pins = pins
    for count in range(1, 12):
        kept.append(entry(at(1, count), 500))
        assert kept.bytes == min(1000 * count, bytes_)
    kept.append(entry(at(1, 12), 9_000))
    assert len(kept) == 1, "one event always fits"


def test_what_lies_within_a_hole_is_found_again_and_kept_once() -> None:
    """A worker that takes over another's memory takes over durable events within a hole that it may ask about."""
    one = ring()
    one.begin(at(9))
    before, inside, behind = entry(at(3, 1)), entry(at(4, durable=5)), entry(at(8, 1))
    one.learn(at(1), at(9), [Hole(at(2), at(8), UNKNOWN), inside, behind])
    one.learn(at(2), at(8), [before, inside])
    assert one.after(at(1)) == [before, inside, behind]


def test_what_is_held_for_those_who_wait_is_within_the_common_limit_without_a_history_too() -> None:
    history = History(Settings(history_events=0, history_total_bytes=100_000, queue_bytes=1_000_000), lambda: 0.0)
    rings = [history.ring() for _ in range(10)]
    for place, each in enumerate(rings):
        each.begin(at(1))
        each.pins = 1
        for count in range(1, 10):
            history.append(each, entry(at(1, 10 * place + count), 5_000))
    assert 90_000 < history.bytes <= 100_000
    assert not rings[0], "the oldest go first"
    assert len(rings[-1]) == 9
    for each in rings:
        each.pins = 0
        each.trim()
    assert (history.bytes, history.entries) == (0, 0)


def test_sizes_are_counted_of_what_was_learned_too() -> None:
    counted = [0, 0]

    def resized(size: int, count: int) -> None:
        counted[0] += size
        counted[1] += count

    kept = Ring(Limits(10, 100_000, 0, 0), resized)
    kept.begin(at(3))
    kept.append(Hole(at(3), at(5), LOST))
    kept.append(entry(at(5, 1), 10))
    kept.learn(at(3), at(5), [entry(at(4, 1), 20), entry(at(4, 2), 30)])
    kept.learn(at(1), at(3), [entry(at(2, 1), 40)])
    held = kept.after(at(1))
    assert [each.position for each in held] == [at(2, 1), at(4, 1), at(4, 2), at(5, 1)]
    assert counted == [sum(map(size_of, held)), 4]
    assert kept.bytes == counted[0]


def test_holes_that_are_forgotten_are_not_looked_for() -> None:
    kept = ring(events=2)
    kept.append(Hole(at(1), at(2), LOST))
    for count in range(1, 4):
        kept.append(entry(at(2, count)))
    assert kept._holes == 0, "what came after a position is found without looking at everything before"
    kept.append(Hole(at(2, 3), at(5), LOST))
    assert kept._holes == 1
    kept.learn(at(2, 3), at(5), [])
    assert kept._holes == 0
    kept.clear()
    assert (len(kept), kept.bytes) == (0, 0)


def test_what_was_known_at_the_end_of_a_hole_is_kept_once() -> None:
    kept = ring()
    kept.append(Hole(at(1), at(5, 2), LOST))
    kept.learn(at(1), at(5, 2), [entry(at(5, 2))])
    kept.append(Hole(at(5, 2), at(9), LOST))
    kept.learn(at(5, 2), at(9), [entry(at(8, 1))])
    assert [each.position for each in kept.after(at(1))] == [at(5, 2), at(8, 1)]


def test_only_as_far_back_as_somebody_knows() -> None:
    kept = ring()
    first, second = entry(at(0, 8)), entry(at(0, 9))
    kept.learn(ZERO, at(1), [Hole(ZERO, at(0, 7), "not_kept"), first, second])
    assert kept.after(at(0, 7)) == [first, second]


def test_a_ring_that_was_never_open_learns_nothing() -> None:
    kept = Ring(Limits(10, 1000, 0, 0))
    kept.learn(ZERO, at(1), [entry(at(0, 1))])
    assert (kept.since, len(kept)) == (None, 0)


def test_the_newest_entry_may_be_larger_than_what_may_be_held() -> None:
    kept = ring(bytes_=600)
    kept.append(entry(at(1, 1), 5000))
    assert len(kept) == 1
    kept.append(entry(at(1, 2), 100))
    assert [each.position for each in kept.after(at(1, 1))] == [at(1, 2)]
    assert kept.bytes == 600, "just what may be held"
