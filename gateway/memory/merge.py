"""Putting together what several workers know."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.memory.entry import Entry, Kept, in_order
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.position import Position


class Known(NamedTuple):
    """What one worker knows of a topic: everything in (start, end], except in the holes among `kept`."""

    start: Position
    end: Position
    kept: Sequence[Kept]


def merge(start: Position, end: Position, answers: Iterable[Known]) -> list[Kept]:
    """What several workers together know of (start, end]; what none of them knows is an unknown hole."""
    ranges: list[tuple[Position, Position]] = []
    events: dict[Position, Entry] = {}
    for begin, to, kept in answers:
        for each in kept:
            if isinstance(each, Entry):
                if start < each.position <= end:
                    events[each.position] = each
            else:
                ranges.append((begin, each.position))
                begin = max(begin, each.end)
        ranges.append((begin, to))
    found: list[Kept] = list(events.values())
    found += unknown_parts(start, end, ranges)
    return in_order(found)


def unknown_parts(start: Position, end: Position, known: Iterable[tuple[Position, Position]]) -> list[Hole]:
    """The parts of (start, end] that lie in none of the known ranges."""
    holes = []
    reached = start
    for begin, to in sorted(known):
        if begin > reached:
            holes.append(Hole(reached, min(begin, end), UNKNOWN))
        reached = max(reached, to)
        if reached >= end:
            break
    if reached < end:
        holes.append(Hole(reached, end, UNKNOWN))
    return [hole for hole in holes if hole.position < hole.end]
