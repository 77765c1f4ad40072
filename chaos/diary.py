"""What one client received on one channel, in the order in which it came."""

GAP = -1
"""Stands in the place of a run's first number for a `gateway.gap` event."""


class Diary:
    """Numbers are kept as runs, because a stream that loses nothing is one single run however long it lasts.

    Attributes:
        entries: `[first, last]` for messages that followed each other, `[GAP, GAP]` for a gap event.
        highest: the highest number so far.
    """

    __slots__ = ("entries", "highest")

    def __init__(self) -> None:
        self.entries: list[list[int]] = []
        self.highest = -1

    def message(self, number: int) -> None:
        if self.entries and self.entries[-1][1] == number - 1 and self.entries[-1][0] != GAP:
            self.entries[-1][1] = number
        else:
            self.entries.append([number, number])
        self.highest = max(self.highest, number)

    def gap(self) -> None:
        self.entries.append([GAP, GAP])
