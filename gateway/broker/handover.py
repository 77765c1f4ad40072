"""Asking the other workers what they know: of everything when this one starts, of single channels later.

The question and the answers go through Pub/Sub, because Redis keeps the order: whoever hears the question has heard
exactly what was published before it, and so has the one who asks when the question comes back to it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

import orjson
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from gateway.broker.client import connection_pool
from gateway.fanout.record import TopicRecord, parse_part
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_END = b"end"
_ROOM = 6_291_456
"""Bytes of events in all answers to one question. Redis closes a subscriber's connection that has 32 MB waiting for
it (client-output-buffer-limit pubsub); as JSON they are almost twice as many, and more than one question may be open.
"""
_ROOM_AFTER = 1_048_576
"""The same for a question about one client's id; several of those may be open."""


class Question(NamedTuple):
    """What a worker asks.

    Attributes:
        asker: which worker.
        number: counts its questions.
        channels: which it asks about; None: all.
        after: the id after which it wants to know what came, on those who know the id; None: all that is recent.
        room: how many bytes of events one worker may answer with.
    """

    asker: bytes
    number: int
    channels: tuple[str, ...] | None
    after: str | None
    room: int


class _Pending:
    """A question of this worker that waits for its answers."""

    def __init__(self, on_back: Callable[[], None]) -> None:
        self.on_back = on_back
        self.came_back = asyncio.Event()
        self.changed = asyncio.Event()
        self.parts: dict[bytes, list[TopicRecord]] = {}
        self.ended: set[bytes] = set()


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
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        channels: Sequence[str] | None,
        patience: float,
        on_back: Callable[[], None],
        after: str | None = None,
    ) -> list[list[TopicRecord]]:
        """Ask, and wait for the answers.

        Args:
            channels: which to ask about; None: all.
            patience: seconds after which it goes on without the answers that have not come.
            on_back: called when Redis has put the question in its place: answers tell what came before.
            after: the id after which is wanted what came; None: all that is recent.

        Returns:
            What each worker has said that has answered completely and in time.
        """
        if not self.enabled:
            return []
        self._number += 1
        number, pending = self._number, _Pending(on_back)
        self._pending[number] = pending
        try:
            async with asyncio.timeout(patience):
                others = await self._others()
                room = (_ROOM if after is None else _ROOM_AFTER) // max(1, others or 1)
                words = orjson.dumps([channels, after, room])
                received = await self._redis.publish(self.questions, b"%s %d %s" % (self._own, number, words))
                if others is None:
                    others = int(received) - 1
                await pending.came_back.wait()
                while len(pending.ended) < others:
                    pending.changed.clear()
                    await pending.changed.wait()
        except (RedisError, OSError) as error:  # TimeoutError is one
            logger.warning("not all workers have said what they know: %s", str(error) or type(error).__name__)
        finally:
            del self._pending[number]
        if not pending.came_back.is_set():
            return []
        return [pending.parts.get(worker, []) for worker in sorted(pending.ended)]

    def asked(self, message: bytes) -> Question | None:
        """A question has come.

        Returns:
            The question to answer; None if it is this worker's own that came back.

        Raises:
            ValueError: it is no question.
        """
        asker, number, words = message.split(b" ", 2)
        channels, after, room = orjson.loads(words)
        named = channels is None or (isinstance(channels, list) and all(isinstance(name, str) for name in channels))
        if not named or not isinstance(after, str | None) or type(room) is not int:
            raise ValueError("neither channels nor an id, or no room")
        if asker != self._own:
            return Question(asker, int(number), None if channels is None else tuple(channels), after, room)
        pending = self._pending.get(int(number))
        if pending is not None:  # else it was given up
            pending.on_back()
            pending.came_back.set()
        return None

    def answer(self, question: Question, parts: list[bytes]) -> None:
        """Send what this worker knows; returns at once."""
        task = asyncio.create_task(self._send(question, parts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, message: bytes) -> None:
        """A part of an answer has come."""
        worker, number, part = message.split(b" ", 2)
        pending = self._pending.get(int(number))
        if pending is None:  # it was given up
            return
        if part == _END:
            pending.ended.add(worker)
            pending.changed.set()
            return
        try:
            pending.parts.setdefault(worker, []).extend(parse_part(part))
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

    async def _others(self) -> int | None:
        """How many other workers listen; None if Redis doesn't say."""
        try:
            [(_, count)] = await self._redis.pubsub_numsub(self.questions)
        except NoPermissionError:
            return None
        return max(0, int(count) - 1)

    async def _send(self, question: Question, parts: list[bytes]) -> None:
        try:
            for part in [*parts, _END]:
                message = b"%s %d %s" % (self._own, question.number, part)
                await self._redis.publish(self._answers_prefix + question.asker, message)
        except (RedisError, OSError) as error:
            logger.warning("could not tell another worker what this one knows: %s", error)
