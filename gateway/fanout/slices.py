"""Large fan-outs in slices, so that a channel with ten thousand clients does not hold up one with ten."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from gateway.fanout.audience import Audience
from gateway.fanout.encodings import Encoding
from gateway.fanout.sending import Behind, send_all
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.unsent import Unsent
from gateway.memory.replay import Replayed

SLICE = 100
"""Writes in one turn of the event loop, somewhat less than a millisecond. A message for another channel waits for
some three turns; the turn itself costs little beside its writes."""
_POINTER = 8
_MAX_WAITING = 1_048_576
"""Bytes that may wait for their turn on one topic. More are sent at once: memory is not to pay for fairness."""

Queue = Callable[[list[Behind], Encoding, bytes, str, list[Replayed]], None]


class _Job:
    """Events for those who were there when they came."""

    __slots__ = ("channel", "encoding", "events", "piece", "place", "recipients", "size", "version")

    def __init__(
        self,
        audience: Audience,
        recipients: list[Subscriber],
        encoding: Encoding,
        channel: str,
        events: list[Replayed],
    ) -> None:
        self.recipients = recipients
        self.encoding = encoding
        self.channel = channel
        self.events = list(events)
        self.size = _POINTER * len(recipients) + sum(each.event.size for each in events)
        self.version = audience.version
        self.piece = b""
        self.place = 0


class Slices:
    """The fan-outs under way, in turns.

    Only subscribers of one topic are served here: each has its events in order because its topic's jobs are done in
    order.

    Args:
        queue: takes what could not be sent.
        unsent: the memory of all that waits for clients; if it is full, nothing waits here.
    """

    def __init__(self, queue: Queue, unsent: Unsent) -> None:
        self._queue = queue
        self._unsent = unsent
        self._jobs: dict[Audience, deque[_Job]] = {}
        self._scheduled = False

    def wants(self, audience: Audience, recipients: int) -> bool:
        """Whether a fan-out is to be done here: it is large, or one before it is still under way."""
        return recipients > SLICE or audience in self._jobs

    def add(
        self,
        audience: Audience,
        recipients: Iterable[Subscriber],
        encoding: Encoding,
        channel: str,
        events: list[Replayed],
    ) -> None:
        """Take a fan-out over."""
        jobs = self._jobs.setdefault(audience, deque())
        last = jobs[-1] if jobs else None
        if (
            last is not None
            and not last.place
            and last.encoding is encoding
            and last.channel == channel
            and last.version == audience.version
        ):
            last.events += events  # the same people, and nobody has had the first part: one write for both
            size = sum(each.event.size for each in events)
            last.size += size
        else:
            jobs.append(_Job(audience, list(recipients), encoding, channel, events))
            size = jobs[-1].size
        self._unsent.grow(size)
        if self._unsent.full or sum(job.size for job in jobs) > _MAX_WAITING:
            self.finish(audience)
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def finish(self, audience: Audience) -> None:
        """Do the rest for one topic at once: a stream that ends must have everything that its id stands for."""
        while audience in self._jobs:
            self._work(audience)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._jobs:
            return
        audience = next(iter(self._jobs))
        self._work(audience)
        if audience in self._jobs:  # to the end of the line
            self._jobs[audience] = self._jobs.pop(audience)
        if self._jobs:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _work(self, audience: Audience) -> None:
        jobs = self._jobs[audience]
        job = jobs[0]
        if not job.place:
            job.piece = job.encoding.encode(job.events)
        piece = job.piece
        behind = send_all(job.recipients[job.place : job.place + SLICE], piece)
        job.place += SLICE
        if job.place >= len(job.recipients):
            jobs.popleft()
            self._unsent.grow(-job.size)
            if not jobs:
                del self._jobs[audience]
        if behind:
            self._queue(behind, job.encoding, piece, job.channel, job.events)
