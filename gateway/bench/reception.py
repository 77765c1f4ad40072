"""One stream as the reader sees it: bytes in, checked messages out."""

from collections.abc import MutableMapping

from gateway.bench.decoder import Head, State
from gateway.bench.latencies import SHIFT
from gateway.bench.ledger import Ledger
from gateway.bench.load import OWN_FIRST


class Reception:
    """Decodes and checks the response of one stream, from its first byte.

    Args:
        latencies: buckets in which each arrival is counted; shared by the streams of a process.
        channels: how many channels the stream listens to, one of its own not counted.
        own: whether it has a channel of its own as well, whose numbers begin with `OWN_FIRST`.

    Attributes:
        gaps: how many gaps the server has announced.
    """

    __slots__ = ("gaps", "latencies", "ledger", "own", "state")

    def __init__(self, latencies: MutableMapping[int, int], channels: int = 1, own: bool = False) -> None:
        self.latencies = latencies
        self.ledger = Ledger(channels)
        self.own = Ledger() if own else None
        if self.own:
            self.own.rebase(OWN_FIRST)
        self.gaps = 0
        self.state: State = Head()

    def feed(self, data: bytes, now: int) -> int:
        """Take the bytes read at `now` nanoseconds; returns how many new messages they completed.

        Raises:
            ResponseError: this is no event stream, or its framing is broken.
        """
        state = self.state
        piece = state.memo.get(data) or state.step(data)
        self.state = piece.after
        if piece.gaps:
            self.gaps += piece.gaps
        numbers = piece.numbers
        if not numbers:
            return 0
        for stamp in piece.stamps:
            self.latencies[(now - stamp) >> SHIFT] += 1
        ledger = self.ledger
        if piece.run and numbers[0] == ledger.next:  # what nearly always happens
            ledger.next += len(numbers)
            return len(numbers)
        if self.own is None:
            return ledger.record(numbers)
        shared = tuple(number for number in numbers if number < OWN_FIRST)
        own = tuple(number for number in numbers if number >= OWN_FIRST)
        return ledger.record(shared) + self.own.record(own)
