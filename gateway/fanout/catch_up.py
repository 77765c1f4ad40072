"""Bringing a client up to date before its stream begins."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from gateway.fanout.history import History
from gateway.fanout.ids import DurableId, parse_durable
from gateway.fanout.past import Past, PastReader, PastUnavailable
from gateway.fanout.resume import (
    Replay,
    channels_to_read,
    channels_to_read_last,
    replay_after,
    replay_last,
)
from gateway.fanout.ring import Ring
from gateway.fanout.topic import Topic
from gateway.metrics import Metrics

_READS_AT_A_TIME = 4
_SHARED_CHANNELS = 256
_TRIES = 3


class _Read(NamedTuple):
    """A read of one channel's durable history, under way or done.

    It serves everybody who comes back from `after` or later for as long as the ring it was made beside still has all
    that was received since (`seq`): what came before is in it, what came after in the ring.
    """

    after: DurableId
    ring: Ring | None
    seq: int
    result: asyncio.Future[dict[str, Past]]


class CatchUp:
    """Finds out what a client missed.

    When ten thousand clients come back at once, most of them to what this worker has in its rings, Redis is not asked
    at all; where it has to be, it is asked once for all who want the same.
    """

    def __init__(self, history: History, reader: PastReader, limit: int, metrics: Metrics) -> None:
        self._history = history
        self._reader = reader
        self._limit = limit
        self._metrics = metrics
        self._reads: OrderedDict[str, _Read] = OrderedDict()
        self._slots = asyncio.Semaphore(_READS_AT_A_TIME)
        self._tasks: set[asyncio.Task[dict[str, Past]]] = set()

    async def after(self, topics: tuple[Topic, ...], last_event_id: str) -> Replay:
        """What came after an id.

        Nothing may be awaited between this and joining the hub: what comes in between would be lost.
        """
        pasts: Mapping[str, Past] | None = {}
        wanted = parse_durable(last_event_id)
        if wanted is not None:
            for _ in range(_TRIES):
                names = channels_to_read(topics, last_event_id)
                by_name = {topic.name: topic for topic in topics if topic.name in names and not topic.is_pattern}
                pasts = await self._shared(by_name, wanted) if by_name else {}
                if pasts is None or self._still_complete(by_name):
                    break
            else:
                pasts = None
        replay = replay_after(topics, last_event_id, pasts, self._history, self._limit)
        return self._counted(replay)

    async def last(self, topics: tuple[Topic, ...], count: int) -> Replay:
        """The newest events of each topic; the same holds."""
        names = channels_to_read_last(topics, count)
        pasts: Mapping[str, Past] | None = None
        if names:
            try:
                pasts = await self._read_last(names, count)
            except PastUnavailable:
                pasts = None
        return self._counted(replay_last(topics, count, pasts, self._limit))

    def _counted(self, replay: Replay) -> Replay:
        self._metrics.replayed += len(replay.events) - replay.gaps
        if replay.gaps:
            self._metrics.gaps["on_return"] += replay.gaps
        return replay

    async def _shared(self, topics: Mapping[str, Topic], after: DurableId) -> dict[str, Past] | None:
        missing = [name for name, topic in topics.items() if not self._serves(self._reads.get(name), topic, after)]
        if missing:
            task = asyncio.create_task(self._read_after(missing, after))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            for name in missing:
                self._reads[name] = _Read(after, topics[name].ring, self._history.seq, task)
                self._reads.move_to_end(name)
            while len(self._reads) > _SHARED_CHANNELS:
                self._reads.popitem(last=False)
        reads = {name: self._reads[name] for name in topics if name in self._reads}
        try:
            # Shared, so that one who leaves doesn't take it from the others.
            return {name: (await asyncio.shield(read.result))[name] for name, read in reads.items()}
        except PastUnavailable:
            for name, read in reads.items():
                if self._reads.get(name) is read:
                    del self._reads[name]
            return None

    def _serves(self, read: _Read | None, topic: Topic, after: DurableId) -> bool:
        if read is None or read.after > after or read.ring is not topic.ring or not _covers(topic, read.seq):
            return False
        if not read.result.done():
            return True
        if read.result.cancelled() or read.result.exception() is not None:
            return False
        # A gap before an earlier id may be none before this one.
        return read.after == after or read.result.result()[topic.name].gap is None

    def _still_complete(self, topics: Mapping[str, Topic]) -> bool:
        return all(
            name in self._reads and self._reads[name].ring is topic.ring and _covers(topic, self._reads[name].seq)
            for name, topic in topics.items()
        )

    async def _read_after(self, names: list[str], after: DurableId) -> dict[str, Past]:
        async with self._slots:
            self._metrics.history_reads += 1
            return await self._reader.after(names, after)

    async def _read_last(self, names: list[str], count: int) -> dict[str, Past]:
        async with self._slots:
            self._metrics.history_reads += 1
            return await self._reader.last(names, count)


def _covers(topic: Topic, seq: int) -> bool:
    return topic.ring is not None and topic.ring.since <= seq
