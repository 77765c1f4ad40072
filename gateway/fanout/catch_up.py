"""Bringing a client up to date before its stream begins."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from gateway.fanout.budget import Budget
from gateway.fanout.contracts import Peers
from gateway.fanout.history import History
from gateway.fanout.ids import DurableId, parse_durable
from gateway.fanout.past import Past, PastReader, PastUnavailable
from gateway.fanout.record import PeerPast
from gateway.fanout.resume import (
    Limits,
    Replay,
    channels_to_read,
    channels_to_read_last,
    not_covered,
    replay_after,
    replay_last,
    replay_with_peers,
)
from gateway.fanout.ring import Ring
from gateway.fanout.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

_READS_AT_A_TIME = 4
_QUESTIONS_AT_A_TIME = 4
_QUESTIONS_WAITING = 32
_QUESTIONS_PER_SECOND = 50.0
"""All workers answer each, so what clients make up must not cost more than that."""
_SHARED_SECONDS = 5.0
_TRIES = 3
_MEMORIES = 64


class _Read(NamedTuple):
    """A read of durable history, under way or done.

    It serves everybody who comes back from `after` or later for as long as the ring it was made beside still has all
    that was received since (`seq`): what came before is in it, what came after in the ring.
    """

    after: DurableId
    ring: Ring | None
    seq: int
    began: float
    result: asyncio.Task[dict[str, Past]]

    def covers(self, topic: Topic) -> bool:
        return self.ring is topic.ring and topic.ring is not None and topic.ring.since <= self.seq


class CatchUp:
    """Finds out what a client missed.

    When ten thousand clients come back at once, most of them to what this worker has in its rings, Redis is not asked
    at all; where it has to be, it is asked once for all who want the same. And what many have missed alike is put
    together once.

    Args:
        settings: the limits.
        history: this worker's.
        reader: of durable history.
        peers: the other workers, asked about ids that are not known here.
        caught_up: waits until all that Redis was given to publish has been delivered here.
        metrics: where reads and gaps are counted.
        clock: event loop time.
    """

    def __init__(
        self,
        settings: Settings,
        history: History,
        reader: PastReader,
        peers: Peers,
        caught_up: Callable[[], Awaitable[bool]],
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._history = history
        self._reader = reader
        self._peers = peers
        self._caught_up = caught_up
        self._limits = Limits(settings.replay_events, settings.replay_bytes)
        self._metrics = metrics
        self._clock = clock
        self._reads: dict[str, _Read] = {}
        self._slots = asyncio.Semaphore(_READS_AT_A_TIME)
        self._questions: dict[tuple[object, ...], asyncio.Task[PeerPast | None]] = {}
        self._question_slots = asyncio.Semaphore(_QUESTIONS_AT_A_TIME)
        self._questions_budget = Budget(_QUESTIONS_PER_SECOND, clock)
        # What was put together for others, as long as nothing has come since.
        self._memories: OrderedDict[tuple[object, ...], Replay] = OrderedDict()

    async def after(self, topics: tuple[Topic, ...], last_event_id: str) -> Replay:
        """What came after an id.

        Nothing may be awaited between this and joining the hub: what comes in between would be lost.
        """
        pasts: Mapping[str, Past] | None = {}
        wanted = parse_durable(last_event_id)
        if wanted is not None:
            pasts = await self._pasts(topics, last_event_id, wanted)
        elif not_covered(topics, last_event_id):
            peers = await self._asked(topics, last_event_id)
            # It tells all or nothing of each channel, so it has to know of more of them than this worker does.
            if peers is not None and len(peers.records) > _named(topics) - len(not_covered(topics, last_event_id)):
                return self._counted(replay_with_peers(topics, last_event_id, peers, self._limits))
        if pasts:
            return self._counted(replay_after(topics, last_event_id, pasts, self._history, self._limits))
        return self._remembered(
            (topics, last_event_id, pasts is None),
            lambda: replay_after(topics, last_event_id, pasts, self._history, self._limits),
        )

    async def last(self, topics: tuple[Topic, ...], count: int) -> Replay:
        """The newest events of each topic; the same holds."""
        names = channels_to_read_last(topics, count)
        if names:
            try:
                async with self._slots:
                    self._metrics.history_reads += 1
                    pasts = await self._reader.last(names, count)
                    await self._caught_up()
            except PastUnavailable:
                pasts = {}
            return self._counted(replay_last(topics, count, pasts, self._limits))
        return self._remembered((topics, count), lambda: replay_last(topics, count, None, self._limits))

    def sweep(self) -> None:
        """Forget reads nobody will ask for again; to be called every second or so."""
        self._memories.clear()
        old = self._clock() - _SHARED_SECONDS
        for name in [name for name, read in self._reads.items() if read.result.done() and read.began < old]:
            del self._reads[name]

    def _remembered(self, key: tuple[object, ...], make: Callable[[], Replay]) -> Replay:
        key = (*key, self._history.seq)
        replay = self._memories.get(key)
        if replay is None:
            replay = self._memories[key] = make()
            if len(self._memories) > _MEMORIES:
                self._memories.popitem(last=False)
        return self._counted(replay)

    def _counted(self, replay: Replay) -> Replay:
        self._metrics.replayed += len(replay.events) - replay.gaps
        if replay.gaps:
            self._metrics.gaps["on_return"] += replay.gaps
        return replay

    async def _asked(self, topics: tuple[Topic, ...], last_event_id: str) -> PeerPast | None:
        """What other workers know that came after an id; None if nobody does, or too much is being asked."""
        key = (topics, last_event_id)
        question = self._questions.get(key)
        if question is None:
            if len(self._questions) >= _QUESTIONS_WAITING or not self._questions_budget.take():
                return None
            self._metrics.peer_questions += 1
            names = [topic.name for topic in topics if not topic.is_pattern]
            question = self._questions[key] = asyncio.create_task(self._ask_peers(names, last_event_id))
            question.add_done_callback(lambda _: self._questions.pop(key, None))
        return await asyncio.shield(question)

    async def _ask_peers(self, names: list[str], last_event_id: str) -> PeerPast | None:
        async with self._question_slots:
            return await self._peers.after(names, last_event_id)

    async def _pasts(
        self, topics: tuple[Topic, ...], last_event_id: str, wanted: DurableId
    ) -> Mapping[str, Past] | None:
        """Durable history of the channels that the rings don't cover; None if it can't be had."""
        for _ in range(_TRIES):
            names = set(channels_to_read(topics, last_event_id))
            by_name = {topic.name: topic for topic in topics if topic.name in names and not topic.is_pattern}
            if not by_name:
                return {}
            reads = self._shared(by_name, wanted)
            try:
                # Shared, so that one who leaves doesn't take it from the others.
                results = {name: (await asyncio.shield(read.result))[name] for name, read in reads.items()}
            except PastUnavailable:
                return None
            if all(read.covers(by_name[name]) for name, read in reads.items()):
                return results
        return None

    def _shared(self, topics: Mapping[str, Topic], after: DurableId) -> dict[str, _Read]:
        missing = [name for name, topic in topics.items() if not self._serves(self._reads.get(name), topic, after)]
        if missing:
            task = asyncio.create_task(self._read_after(missing, after))
            task.add_done_callback(_take_note)
            for name in missing:
                self._reads[name] = _Read(after, topics[name].ring, self._history.seq, self._clock(), task)
        return {name: self._reads[name] for name in topics}

    def _serves(self, read: _Read | None, topic: Topic, after: DurableId) -> bool:
        if read is None or read.after > after or not read.covers(topic):
            return False
        if not read.result.done():
            return True
        if read.result.cancelled() or read.result.exception() is not None:
            return False
        # A gap before an earlier id may be none before this one.
        return read.after == after or read.result.result()[topic.name].gap is None

    async def _read_after(self, names: list[str], after: DurableId) -> dict[str, Past]:
        async with self._slots:
            self._metrics.history_reads += 1
            pasts = await self._reader.after(names, after)
        # What was read may still be on its way through Pub/Sub. Once it is in the rings, it is known to be there.
        await self._caught_up()
        return pasts


def _named(topics: Iterable[Topic]) -> int:
    return sum(not topic.is_pattern for topic in topics)


def _take_note(task: asyncio.Task[dict[str, Past]]) -> None:
    """Everybody who waited may have left; the loop would complain that nobody looked."""
    if not task.cancelled():
        task.exception()
