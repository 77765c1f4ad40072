"""What one stream has received, against what was published to it."""


class Ledger:
    """Tells messages that arrived once and in order from lost, repeated and reordered ones.

    Messages of a channel are numbered 0, 1, 2, …; `rebase` begins a new count at a later number.
    """

    __slots__ = ("base", "duplicates", "missing", "next", "reordered")

    def __init__(self) -> None:
        self.rebase(0)

    def rebase(self, number: int) -> None:
        """Count from this message on, and forget what was before."""
        self.base = number
        self.next = number
        self.missing: set[int] = set()
        self.duplicates = 0
        self.reordered = 0

    def record(self, numbers: tuple[int, ...]) -> int:
        """Take messages in the order of their arrival; returns how many of them are new."""
        new = 0
        for number in numbers:
            if number >= self.next:
                self.missing.update(range(self.next, number))
                self.next = number + 1
                new += 1
            elif number in self.missing:
                self.missing.remove(number)
                self.reordered += 1
                new += 1
            else:
                self.duplicates += 1
        return new

    @property
    def received(self) -> int:
        """Different messages received."""
        return self.next - self.base - len(self.missing)

    def lost(self, published: int) -> int:
        """How many of the messages before number `published` did not arrive."""
        return published - self.base - self.received
