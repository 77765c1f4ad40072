"""All rings of a worker together: what is forgotten first, and when."""

from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.hole import LOST, Hole
from gateway.memory.position import Position
from gateway.memory.ring import HOLE_SIZE, OVERHEAD, Ring
from gateway.settings import Settings


def at(count: int) -> Position:
    return Position(1, 1, 0, count)


class Rings:
    """Some rings with a clock of their own."""

    def __init__(
        self, number: int = 2, total: int = 10 * (OVERHEAD + 100), age: float = 60, events: int = 1000
    ) -> None:
        self.now = 1000.0
        settings = Settings(history_total_bytes=total, history_age=age, history_events=events)
        self.history = History(settings, lambda: self.now)
        self.rings = [self.history.ring() for _ in range(number)]
        for each in self.rings:
            each.begin(at(0))

    def keep(self, ring: int, count: int) -> None:
        """An event of 100 bytes."""
        self.history.append(self.rings[ring], Entry(at(count), "news", Event(b"x" * 100)))

    def held(self, ring: int) -> list[int]:
        return [each.position[3] for each in reversed(list(self.rings[ring].newest()))]


def test_everything_is_counted() -> None:
    rings = Rings()
    assert (rings.history.bytes, rings.history.entries) == (0, 0)
    rings.keep(0, 1)
    rings.keep(1, 1)
    rings.history.append(rings.rings[0], Hole(at(1), at(2), LOST))
    assert (rings.history.bytes, rings.history.entries) == (2 * (OVERHEAD + 100) + HOLE_SIZE, 3)
    rings.rings[0].clear()
    assert (rings.history.bytes, rings.history.entries) == (OVERHEAD + 100, 1)


def test_the_oldest_of_all_rings_makes_room() -> None:
    rings = Rings(total=3 * (OVERHEAD + 100))
    for ring, count in ((0, 1), (1, 1), (0, 2)):
        rings.keep(ring, count)
    assert (rings.held(0), rings.held(1)) == ([1, 2], [1]), "what is allowed is held"
    rings.keep(1, 2)
    assert (rings.held(0), rings.held(1)) == ([2], [1, 2])
    rings.keep(1, 3)
    assert (rings.held(0), rings.held(1)) == ([2], [2, 3])
    rings.keep(1, 4)
    assert (rings.held(0), rings.held(1)) == ([], [2, 3, 4]), "even the last of a ring, if there is no room"


def test_what_is_too_old_goes_but_for_the_newest_of_each_ring() -> None:
    rings = Rings()
    rings.keep(0, 1)
    rings.keep(0, 2)
    rings.keep(1, 1)
    rings.now += 60
    rings.keep(1, 2)
    rings.history.sweep()
    assert (rings.held(0), rings.held(1)) == ([1, 2], [1, 2]), "just not too old"
    rings.now += 1
    rings.keep(1, 3)
    assert (rings.held(0), rings.held(1)) == ([2], [2, 3])
    rings.now += 100
    rings.history.sweep()
    assert (rings.held(0), rings.held(1)) == ([2], [3])


def test_a_hole_is_as_old_as_what_it_is_from() -> None:
    rings = Rings(1)
    rings.history.append(rings.rings[0], Hole(at(0), at(5), LOST))
    rings.now += 61
    rings.keep(0, 6)
    assert rings.rings[0].since == at(5)


def test_what_its_ring_has_forgotten_already_is_passed_over() -> None:
    rings = Rings(2, events=1)
    for count in range(1, 6):
        rings.keep(0, count)
    rings.keep(1, 1)
    rings.rings[1].clear()
    rings.rings[1].begin(at(1))
    rings.keep(1, 2)
    rings.now += 61
    rings.history.sweep()
    assert (rings.held(0), rings.held(1)) == ([5], [2])
    rings.now -= 61
    full = Rings(3, total=2 * (OVERHEAD + 100), events=1)
    for count in range(1, 4):
        full.keep(0, count)
    full.keep(1, 1)
    full.rings[0].clear()
    full.keep(2, 1)
    full.keep(2, 2)
    assert (full.held(1), full.held(2)) == ([1], [2])


def test_a_ring_that_forgets_by_itself_leaves_nothing_behind() -> None:
    """A note of each entry is kept until it is forgotten here; a topic that comes and goes must not pile them up."""
    rings = Rings(2, events=3)
    rings.keep(1, 1)
    for count in range(1, 10_000):
        rings.keep(0, count)
        assert len(rings.history._order) <= 2 * rings.history.entries + 1000
    assert len(rings.history._order) > 8, "it is not looked through for each message"
    assert (rings.held(0), rings.held(1)) == ([9997, 9998, 9999], [1])
    rings.now += 61
    rings.history.sweep()
    assert (rings.held(0), rings.held(1)) == ([9999], [1]), "those that are left are still found"
    gone: list[Ring] = []
    for count in range(2000):
        gone.append(rings.history.ring())
        gone[-1].begin(at(0))
        rings.history.append(gone[-1], Entry(at(count + 1), "news", Event(b"")))
        gone[-1].clear()
        assert len(rings.history._order) <= 2 * rings.history.entries + 1010


def test_without_history_only_what_is_waited_for_is_noted() -> None:
    rings = Rings(1, events=0)
    rings.keep(0, 1)
    assert len(rings.history._order) == 0
    rings.rings[0].pins += 1
    for count in range(2, 10):
        rings.keep(0, count)
    assert rings.held(0) == list(range(2, 10))
    assert len(rings.history._order) == 8
