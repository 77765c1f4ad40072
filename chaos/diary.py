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


class CountingDiary(Diary):
    """Of a channel on which messages are identical, but for a numbered one now and then.

    Identical messages are counted. The next numbered one says how many there should have been: what is too many came
    twice, what is too few is missing, at the gap event if there was one, and else just before the numbered message.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        super().__init__()
        self._parts = [0]

    def same(self) -> None:
        """One of the identical messages."""
        self._parts[-1] += 1

    def gap(self) -> None:
        self._parts.append(0)

    def message(self, number: int) -> None:
        due = number - self.highest - 1
        if due < 0:  # it came twice; what came again with it is counted by the next one
            super().message(number)
            return
        missing = due - sum(self._parts)
        place = self.highest + 1
        for index, count in enumerate(self._parts):
            if index:
                super().gap()
                place += max(0, missing)
                missing = min(0, missing)
            for one in range(place, place + count):
                super().message(min(one, number - 1) if due else number)
            place += count
        super().message(number)
        self._parts = [0]
