"""What one stream has received, against what was published to it."""


class Ledger:
    """Tells messages that arrived once and in order from lost, repeated and reordered ones.

    Messages are numbered 0, 1, 2, …; `rebase` begins a new count at a later number.

    Args:
        channels: the numbers go round so many channels in turn. Between two channels messages may change places;
            within one they may not.
    """

    __slots__ = ("base", "channels", "duplicates", "missing", "next", "reordered")

    def __init__(self, channels: int = 1) -> None:
        self.channels = channels
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
                later = range(number + self.channels, self.next, self.channels)
                self.reordered += any(one not in self.missing for one in later)
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
