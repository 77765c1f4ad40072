"""What this worker doesn't know of the past: the other workers are asked, then Redis."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError

from gateway import ports
from gateway.broker.peers import Peers
from gateway.broker.redis_history import RedisHistory
from gateway.broker.wire import MAX_QUESTIONS, Question
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.durables import fill
from gateway.memory.entry import Kept as Remembered
from gateway.memory.hole import LOST, Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import merge
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.ports import Interrupted

logger = logging.getLogger(__name__)

_AT_A_TIME = 4
"""Batches of questions under way; the others wait, and become fewer and larger."""
_PATIENCE = 5.0
_AGAIN = 0.3
"""Seconds: how long, and how often, it is tried to ask Redis. A gap that need not be is worse than a late answer."""
_WITNESSES = 64


class _Asked(NamedTuple):
    """What is asked.

    Attributes:
        epoch: the connection over which: whoever asks over a new one must not get the former one's failure.
        workers: whether the other workers are asked, too.
    """

    topic: Topic
    hole: Hole
    epoch: int
    workers: bool


class PastOfOthers:
    """Answers questions about what is missing on a topic; identical ones are asked once, and many together."""

    def __init__(
        self, listening: Listening, peers: Peers, redis_history: RedisHistory, durable_channels: DurableChannels
    ) -> None:
        self._listening = listening
        self._peers = peers
        self._redis_history = redis_history
        self._durable_channels = durable_channels
        self._shared: dict[_Asked, asyncio.Future[list[Remembered]]] = {}
        self._waiting: list[_Asked] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._witnesses: dict[tuple[Position, Position], asyncio.Future[bool]] = {}

    async def find(self, topic: Topic, hole: Hole, workers: bool = True) -> list[Remembered]:
        key = _Asked(topic, hole, self._listening.epoch, workers)
        future = self._shared.get(key)
        if future is None:
            future = self._shared[key] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: self._forget(key, done))
            self._waiting.append(key)
            if len(self._batches) < _AT_A_TIME:
                self._start_batch()
        # Shared, so that one who leaves doesn't take it from the others.
        return await asyncio.shield(future)

    async def newest(self, ends: Mapping[Topic, Position], count: int, after: tuple[int, int] | None) -> ports.Newest:
        return await self._redis_history.newest(ends, count, after)

    def _forget(self, key: _Asked, done: asyncio.Future[list[Remembered]]) -> None:
        self._shared.pop(key, None)
        if not done.cancelled():
            done.exception()  # everybody who waited may have left; the loop would complain that nobody looked

    def _start_batch(self) -> None:
        task = asyncio.create_task(self._work())
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _work(self) -> None:
        await asyncio.sleep(0)  # whoever asks in this turn of the event loop is in the same batch
        while self._waiting:
            epoch = self._listening.epoch
            self._fail([key for key in self._waiting if key.epoch != epoch], Interrupted())
            waiting = [key for key in self._waiting if key.epoch == epoch]
            batch, self._waiting = waiting[:MAX_QUESTIONS], waiting[MAX_QUESTIONS:]
            try:
                found = await self._answer_patiently(batch)
            except Exception as error:
                logger.exception("what others know could not be found out")
                self._fail(batch, error)
                continue
            if epoch != self._listening.epoch:
                self._fail(batch, Interrupted())
                continue
            for key, kept in zip(batch, found, strict=True):
                if key.workers:  # else another worker may still know what Redis doesn't
                    key.topic.ring.learn(key.hole.position, key.hole.end, kept)
                future = self._shared.get(key)
                if future is not None and not future.done():
                    future.set_result(kept)

    def _fail(self, batch: Iterable[_Asked], error: Exception) -> None:
        for key in batch:
            future = self._shared.get(key)
            if future is not None and not future.done():
                future.set_exception(error)

    async def _answer_patiently(self, batch: Sequence[_Asked]) -> list[list[Remembered]]:
        """The answers, also if no connection can be had for a moment, as when the process is out of descriptors."""
        loop = asyncio.get_running_loop()
        epoch, end = self._listening.epoch, loop.time() + _PATIENCE
        while True:
            last = loop.time() >= end or epoch != self._listening.epoch
            try:
                return await self._answer(batch, give_up=last)
            except (RedisConnectionError, OSError) as error:
                logger.debug("Redis could not be asked, trying again: %s", error)
            await asyncio.sleep(_AGAIN)

    async def _answer(self, batch: Sequence[_Asked], give_up: bool) -> list[list[Remembered]]:
        asked = {
            key: Question(key.topic.name, key.topic.is_pattern, key.hole.position, key.hole.end)
            for key in batch
            # If no worker heard everything, Redis was away for all of them, and asking would be a storm.
            if key.workers and (key.hole.kind != LOST or await self._witnessed(key.hole))
        }
        answers = await self._peers.ask(list(dict.fromkeys(asked.values()))) if asked else {}
        found = [
            merge(key.hole.position, key.hole.end, answers[asked[key]]) if key in asked else [key.hole]
            for key in batch
        ]
        missing = [
            (key.topic, each._replace(kind=key.hole.kind))
            for key, kept in zip(batch, found, strict=True)
            for each in kept
            if isinstance(each, Hole)
        ]
        from_redis = await self._redis_history.within(missing, give_up) if missing else {}
        return [
            fill(
                kept,
                {
                    each: from_redis[key.topic, each._replace(kind=key.hole.kind)]
                    for each in kept
                    if isinstance(each, Hole)
                },
                self._durable_channels.all_of(key.topic),
            )
            for key, kept in zip(batch, found, strict=True)
        ]

    async def _witnessed(self, hole: Hole) -> bool:
        """Whether another worker has heard everything between the ticks around a hole of this worker's own."""
        key = (Position(*hole.position[:2]), hole.end)
        if key[0].generation != key[1].generation:
            return False
        witness = self._witnesses.get(key)
        if witness is None:
            if len(self._witnesses) > _WITNESSES:
                self._witnesses.clear()
            witness = self._witnesses[key] = asyncio.ensure_future(self._peers.heard_all(*key))
        return await asyncio.shield(witness)
