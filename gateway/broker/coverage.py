"""Which workers together know enough, and how much of it is told."""

from collections.abc import Iterable, Sequence

from gateway.broker.wire import Question, load_ranges
from gateway.memory.entry import Entry, Kept
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.merge import Known, unknown_parts
from gateway.memory.position import Position


class Coverage:
    """What is known by those who have answered so far.

    Attributes:
        known: by worker, its ranges for each question.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.known: dict[str, list[Known | None]] = {}
        self._questions = questions
        # By its place, each question of which some part is not known yet, and what is.
        self._open: dict[int, list[tuple[Position, Position]]] = {place: [] for place in range(len(questions))}

    def add(self, peer: str, answer: list[object]) -> bool:
        """A worker has answered; returns whether everything is known by now: a worker that hangs isn't waited for."""
        try:
            ranges = [load_ranges(each) for each in answer]
        except ValueError:
            return False
        if len(ranges) != len(self._questions):
            return False
        self.known[peer] = ranges
        for place in list(self._open):
            question, of_peer = self._questions[place], ranges[place]
            if of_peer is not None:
                self._open[place] += ranges_of(of_peer)
                if not unknown_parts(question.start, question.end, self._open[place]):
                    del self._open[place]
        return not self._open


def enough(question: Question, known: dict[str, Known]) -> Iterable[str]:
    """Workers that together know as much as all: one, if there is one that knows everything."""
    ranges = {peer: ranges_of(of) for peer, of in known.items()}
    for peer in ranges:
        if not unknown_parts(question.start, question.end, ranges[peer]):
            return [peer]
    chosen: list[str] = []
    together: list[tuple[Position, Position]] = []
    for peer, own in ranges.items():
        before = unknown_parts(question.start, question.end, together)
        if unknown_parts(question.start, question.end, [*together, *own]) != before:
            chosen.append(peer)
            together += own
    return chosen


def ranges_of(known: Known) -> list[tuple[Position, Position]]:
    """The parts about which a worker knows everything: those around the holes."""
    ranges = []
    begin = known.start
    for each in known.kept:
        if isinstance(each, Hole):
            ranges.append((begin, each.position))
            begin = max(begin, each.end)
    ranges.append((begin, known.end))
    return ranges


def newest_within(known: Known, room: int) -> tuple[Known, int]:
    """As much of it as there is room for (bytes of events), the newest; and how much that is."""
    used = 0
    kept: list[Kept] = []
    for each in reversed(known.kept):
        size = each.event.size if isinstance(each, Entry) else 0
        if used + size > room:
            assert isinstance(each, Entry)
            kept.append(Hole(known.start, each.position, UNKNOWN))
            break
        used += size
        kept.append(each)
    kept.reverse()
    return known._replace(kept=kept), used
