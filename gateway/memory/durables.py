"""What is assembled of a topic's past from the workers' memories and from what Redis keeps."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.memory.entry import Entry, Kept, in_order
from gateway.memory.hole import LOST, Hole
from gateway.memory.position import Position


def fill(
    found: Iterable[Kept], kept: Mapping[Hole, tuple[Sequence[Entry], bool, str]], durable_only: bool
) -> list[Kept]:
    """What the workers know, with what Redis keeps in the holes.

    Args:
        found: what the workers know.
        kept: by hole, what Redis keeps in it, whether that is complete, and the reason if it isn't, or if plain
            messages may be missing.
        durable_only: whether the topic carries durable messages only: then what is complete leaves no gap.
    """
    events: dict[Position, Entry] = {each.position: each for each in found if isinstance(each, Entry)}
    gaps: list[Hole] = []
    for hole, (entries, complete, reason) in kept.items():
        events.update({entry.position: entry for entry in entries})
        if not (durable_only and complete):
            gaps.append(hole._replace(kind=reason))
    return in_order([*events.values(), *gaps])


def reason_of(hole: Hole, durable_only: bool) -> str:
    """Why nobody knows what is missing."""
    if hole.position.generation and hole.position.generation != hole.end.generation:
        return "redis_restarted"
    if hole.kind == LOST:
        return "redis_lost"
    return "trimmed" if durable_only else "not_kept"
