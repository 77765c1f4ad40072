"""What a ring holds: events and holes, in order."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from gateway.memory.event import Event
from gateway.memory.hole import Hole
from gateway.memory.position import Position


class Entry(NamedTuple):
    """An event in its place."""

    position: Position
    channel: str
    event: Event

    @property
    def end(self) -> Position:
        """As a hole's: where it is over."""
        return self.position


Kept: TypeAlias = Entry | Hole


def clip(kept: Iterable[Kept], start: Position, end: Position) -> Iterator[Kept]:
    """What lies in (start, end]; holes are clipped to that range."""
    for each in kept:
        if isinstance(each, Entry):
            if start < each.position <= end:
                yield each
        elif each.end > start and each.position < end:
            yield each._replace(position=max(each.position, start), end=min(each.end, end))


def in_order(kept: Iterable[Kept]) -> list[Kept]:
    """Sorted; a hole comes after the event at its beginning."""
    return sorted(kept, key=_place)


def _place(each: Kept) -> tuple[Position, bool]:
    return each.position, isinstance(each, Hole)
