"""What could not be sent at once, put where it waits."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.encodings import Encoding
from gateway.fanout.members import Members
from gateway.fanout.policies import Policies, Policy
from gateway.fanout.sending import Behind
from gateway.fanout.subscriber import QUEUE, Sink, Subscriber
from gateway.fanout.unsent import Piece
from gateway.memory.replay import Replayed
from gateway.metrics import Metrics
from gateway.settings import Settings

LARGE = 16_384
"""Bytes that are not copied for each stream: what waits for slow clients is held by reference."""


Alike: TypeAlias = tuple[object, ...]
"""What streams have in common whose ids are the same."""


class Queues:
    """Fills the subscribers' queues.

    Everywhere `behind` is those who didn't take all of a piece: what they didn't take waits for them.

    Args:
        settings: limits of queues, and what happens when one is full.
        members: whose queues they are.
        metrics: where what is dropped is counted.
        clock: event loop time.
    """

    def __init__(self, settings: Settings, members: Members, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._members = members
        self._metrics = metrics
        self._clock = clock
        self._policies = Policies(settings.overflow)
        self._limits = QueueLimits(settings.queue_events, settings.queue_bytes)

    def begin_with(self, subscriber: Subscriber, pieces: Iterator[Piece]) -> None:
        """Let a replay wait for a subscriber, before everything that comes."""
        self._backlog(subscriber).begin_with(pieces)

    def add_shared(
        self, behind: list[Behind], encoding: Encoding, piece: bytes, channel: str, events: list[Replayed]
    ) -> None:
        """Let events of one channel wait that many share."""
        ends = any(each.event.is_end for each in events)
        self.add_run(behind, piece, channel, len(events), lambda: encoding.encode(events[-1:]), ends)

    def add_run(
        self,
        behind: list[Behind],
        piece: bytes,
        channel: str,
        events: int,
        newest: Callable[[], bytes],
        ends: bool,
    ) -> None:
        """Let events of one channel wait.

        Args:
            behind: those who did not take all of the piece.
            piece: the events.
            channel: theirs.
            events: how many.
            newest: gives the last of them alone.
            ends: whether the channel's end is among them. No policy drops that, nor anything in favour of it.
        """
        if ends:
            self.add(behind, piece, "", events, "disconnect")
            return
        policy = self._policies.of(channel)
        if policy == "latest" and events > 1:
            begun = [each for each in behind if each[1] != QUEUE]
            self.add(begun, piece, channel, events, policy)
            behind = [each for each in behind if each[1] == QUEUE]
            if not behind:
                return
            events = 1
            piece = newest()
        self.add(behind, piece, channel, events, policy)

    def add_two_parts(
        self,
        channel: str,
        shared: bytes,
        heads: dict[Alike, bytes],
        behind: dict[Alike, list[Behind]],
    ) -> None:
        """Let a large event wait behind a head of each stream's own; under `()`, for those that have had the head."""
        policy = self._policies.of(channel)
        body = Piece(self._members.unsent, shared, 1, channel, policy)
        for alike, some in behind.items():
            if not alike:
                self._add_piece(some, body)
                continue
            begun = [each for each in some if each[1] != QUEUE]
            self.add(begun, heads[alike], channel, 0, policy)
            # Behind a head that has begun, and not in the queue: there it could be dropped without it.
            self._add_piece([(subscriber, 0) for subscriber, _ in begun], body)
            head = Piece(self._members.unsent, heads[alike], 1, channel, policy, rest=body)
            self._add_piece([each for each in some if each[1] == QUEUE], head)

    def add(self, behind: list[Behind], data: bytes, channel: str, events: int, policy: Policy) -> None:
        """Let bytes wait."""
        if behind:
            self._add_piece(behind, Piece(self._members.unsent, data, events, channel, policy))

    def _add_piece(self, behind: list[Behind], piece: Piece) -> None:
        for subscriber, taken in behind:
            if subscriber.closed is not None:  # a moment ago, to make room
                continue
            if taken == QUEUE:
                self._append(subscriber, piece)
            elif subscriber.sink is not None:
                self._send_rest(subscriber, subscriber.sink, piece, taken)
        if self._members.unsent.full:
            self._members.make_room()

    def _send_rest(self, subscriber: Subscriber, sink: Sink, piece: Piece, taken: int) -> None:
        """Have the transport send what the kernel didn't take."""
        self._members.behind.add(subscriber)
        if len(piece.data) - taken > LARGE:
            # A client that doesn't read must not hold a copy of what many share.
            subscriber.writing = piece
            sink.send_rest(memoryview(piece.data)[taken:])
        else:
            rest = piece.data[taken:]
            subscriber.writing = Piece(self._members.unsent, rest)
            sink.send_rest(rest)

    def _append(self, subscriber: Subscriber, piece: Piece) -> None:
        backlog = subscriber.backlog
        if backlog is None:
            backlog = self._backlog(subscriber)
        dropped, gaps = backlog.dropped, backlog.gaps
        if not backlog.add(piece):
            self._members.drop(subscriber, "overflow")
            return
        self._metrics.dropped_events += backlog.dropped - dropped
        self._metrics.gaps["overflow"] += backlog.gaps - gaps
        if subscriber.sink is not None:
            subscriber.sink.wake()

    def _backlog(self, subscriber: Subscriber) -> Backlog:
        """A new queue."""
        backlog = subscriber.backlog = Backlog(self._limits, self._members.unsent, self._clock())
        self._members.behind.add(subscriber)
        return backlog
