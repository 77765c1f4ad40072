"""Asking the other workers what they know: of everything when this one starts, of single channels later.

The question and the answers go through Pub/Sub, because Redis keeps the order: whoever hears the question has heard
exactly what was published before it, and so has the one who asks when the question comes back to it.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.broker.client import connection_pool
from gateway.fanout.handover import TopicRecord, parse_part
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_END = b"end"


class Question(NamedTuple):
    """What a worker asks.

    Attributes:
        asker: which worker.
        number: counts its questions.
        channels: which it asks about; None: all.
    """

    asker: bytes
    number: int
    channels: frozenset[str] | None


class Handover:
    """One worker's side of it, asking and answering.

    Attributes:
        questions: channel in Redis on which is asked; all workers listen to it.
        answers: channel in Redis for the answers to this worker.
        enabled: false if the workers keep no history, or Redis forbids it.
    """

    def __init__(self, settings: Settings) -> None:
        self._own = uuid4().hex.encode()
        prefix = settings.channel_prefix.encode()
        self._answers_prefix = prefix + b"gateway.handover."
        self.questions = prefix + b"gateway.handover"
        self.answers = self._answers_prefix + self._own
        self.enabled = settings.history_events > 0
        self._redis = Redis(connection_pool=connection_pool(settings, 2, settings.redis_connect_timeout))
        self._came_back = asyncio.Event()
        self._changed = asyncio.Event()
        self._number = 0
        self._parts: dict[bytes, list[TopicRecord]] = {}
        self._ended: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, channels: Sequence[str] | None, patience: float) -> list[list[TopicRecord]]:
        """Ask, and wait for the answers; one question at a time.

        Args:
            channels: which to ask about; None: all.
            patience: seconds after which it goes on without the answers that have not come.

        Returns:
            What each worker has said that has answered completely and in time.
        """
        self._number += 1
        self._parts.clear()
        self._ended.clear()
        self._came_back.clear()
        if not self.enabled:
            return []
        question = b"%s %d %s" % (self._own, self._number, orjson.dumps(channels))
        try:
            async with asyncio.timeout(patience):
                others = int(await self._redis.publish(self.questions, question)) - 1
                await self._came_back.wait()
                while len(self._ended) < others:
                    self._changed.clear()
                    await self._changed.wait()
        except (RedisError, OSError) as error:  # TimeoutError is one
            logger.warning("not all workers have said what they know: %s", str(error) or type(error).__name__)
        if not self._came_back.is_set():
            return []
        return [self._parts.get(worker, []) for worker in sorted(self._ended)]

    def asked(self, message: bytes) -> Question:
        """A question has come.

        Raises:
            ValueError: it is no question.
        """
        asker, number, names = message.split(b" ", 2)
        channels = orjson.loads(names)
        return Question(asker, int(number), None if channels is None else frozenset(channels))

    def is_own(self, question: Question) -> bool:
        """Whether this worker has asked it."""
        return question.asker == self._own

    def came_back(self, question: Question) -> bool:
        """An own question has come; false if it was given up before."""
        if question.number != self._number:
            return False
        self._came_back.set()
        return True

    def answer(self, question: Question, parts: list[bytes]) -> None:
        """Send what this worker knows; returns at once."""
        task = asyncio.create_task(self._send(question, parts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, message: bytes) -> None:
        """A part of an answer has come."""
        worker, number, part = message.split(b" ", 2)
        if int(number) != self._number:  # to a question that was given up
            return
        if part == _END:
            self._ended.add(worker)
            self._changed.set()
            return
        try:
            self._parts.setdefault(worker, []).extend(parse_part(part))
        except ValueError as error:
            logger.warning("a worker's answer could not be read: %s", error)

    def forbidden(self) -> None:
        """Redis doesn't let us listen to it."""
        if self.enabled:
            logger.warning(
                "Redis does not allow the channels %s* (ACL); clients that move to a worker that has just started "
                "will be told of gaps",
                self.questions.decode(),
            )
        self.enabled = False

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _send(self, question: Question, parts: list[bytes]) -> None:
        try:
            for part in [*parts, _END]:
                message = b"%s %d %s" % (self._own, question.number, part)
                await self._redis.publish(self._answers_prefix + question.asker, message)
        except (RedisError, OSError) as error:
            logger.warning("could not tell another worker what this one knows: %s", error)
