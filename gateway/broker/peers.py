"""The other workers: what they know, and what they are to take over.

Questions and answers go through Pub/Sub, because Redis keeps the order: whoever reads a question has read everything
that was published before it. A question is first asked of all, and answered with ranges only; then as few workers as
possible are asked for the events.
"""

import asyncio
import contextlib
import logging
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.broker.coverage import Coverage, enough, newest_within, ranges_of
from gateway.broker.signature import Signer
from gateway.broker.topics import WantedTopics
from gateway.broker.wire import (
    MAX_QUESTIONS,
    Message,
    Question,
    dump,
    dump_known,
    dump_questions,
    dump_ranges,
    load,
    load_known,
    load_questions,
    load_span,
)
from gateway.memory.event import RESERVED_PREFIX
from gateway.memory.listening import Listening
from gateway.memory.merge import Known, unknown_parts
from gateway.memory.position import Position
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.ports import TooManyTopics

logger = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds after which a worker that hasn't answered doesn't count. Redis knows of a worker that died; one that only
stands still may be the only one that knows."""
_ACQUAINTANCE = 1.0
"""Seconds in which the others have answered this worker's greeting, or are slow."""
_HEARD_DELAY = 0.03
"""Seconds over which the workers that heard everything spread their answers; the first makes the others silent."""
_TOLD_BYTES = 262_144
"""Of events in one message. A message is made in one go, while nothing else runs."""
_ROUNDS = 3
"""How often it is asked who knows, if those who do are gone when they are to tell."""
_TOLD_ROOM = 4_194_304
"""Bytes of events one worker tells for one question. Redis closes a subscriber's connection that has 32 MB waiting
for it (client-output-buffer-limit pubsub)."""
_MAX_KNOWN = 10_000
_MAX_TASKS = 1000
"""Questions that are being answered. What is beyond that, nobody has asked who means well, and it gets no answer."""
_TELLING = 4
"""Answers with events that are made at the same time: each takes memory until Redis has taken it."""
_ANSWERED = 10_000
"""Questions that are remembered, so that one which is published again is answered once."""
_STEP = 0.01
_INHERITED_SECONDS = 60.0
"""For so long a worker stays subscribed to what it has taken over, until the clients come."""


class _Pending:
    """A question of this worker's that waits for its answers.

    Attributes:
        text: for all workers; empty for a question to one.
        answers: by worker, perhaps not all parts yet.
        complete: the workers that have answered.
        over: the connection to Redis was lost.
    """

    def __init__(self) -> None:
        self.text = b""
        self.answers: dict[str, list[object]] = {}
        self.complete: set[str] = set()
        self.over = False
        self.changed = asyncio.Event()


_HEARD: list[object] = [True]
"""The answer of a worker that has heard everything."""
_QUESTIONS = frozenset(("ask", "stay", "tell", "heard", "inherit"))


class Peers:
    """One worker's side of it, asking and answering.

    Args:
        commands: a connection pool for commands.
        signer: knows the workers' messages from what anybody may publish.
        listening: what this worker has heard.
        topics: what it listens to.
        prefix: put before every name in Redis.
        database: whose workers these are; databases share Pub/Sub.
        metrics: where questions are counted.

    Attributes:
        everyone: channel in Redis on which all workers are asked.
        own: channel for this worker alone.
    """

    def __init__(
        self,
        commands: Redis,
        signer: Signer,
        listening: Listening,
        topics: WantedTopics,
        prefix: bytes,
        database: int,
        metrics: Metrics,
    ) -> None:
        self.name = uuid4().hex[:16]
        self.everyone = b"%bgateway.peers.%d" % (prefix, database)
        self._own_prefix = b"%bgateway.worker.%d." % (prefix, database)
        self.own = self._own_prefix + self.name.encode()
        self.leaving = False
        self._commands = commands
        self._signer = signer
        self._listening = listening
        self._topics = topics
        self._metrics = metrics
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._silenced: set[tuple[str, int]] = set()
        self._telling = asyncio.Semaphore(_TELLING)
        # In the order in which they came: by whom, the number, and the kind.
        self._answered: OrderedDict[tuple[str, int, str], None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        # The workers that have been heard of. Redis' own count of listeners includes connections that died without
        # its knowledge, for minutes; and whoever didn't answer isn't waited for until it is heard of again.
        # When that was, by name (event loop time).
        self._known: dict[str, float] = {}
        # From then on (event loop time) whoever is there is known.
        self._acquainted = -math.inf
        self._is_back = False
        self._handlers: dict[str, Callable[[Message], None]] = {
            "hello": self._on_hello,
            "here": lambda _: None,
            "ask": self._on_ask,
            "stay": self._on_ask,
            "known": self._on_answer,
            "tell": self._on_tell,
            "told": self._on_told,
            "heard": self._on_heard,
            "did": self._on_did,
            "missed": self._on_answer,
            "inherit": self._on_inherit,
            "inherited": self._on_answer,
        }

    def received(self, channel: bytes, payload: bytes) -> None:
        """A message has come on one of the channels."""
        signature, _, payload = payload.partition(b" ")
        if not self._signer.has_signed_lately(payload, signature, channel):
            self._metrics.refused_messages["unsigned"] += 1
            return
        try:
            message = load(payload)
            if message.by != self.name:
                self._heard_of(message.by, leaves=message.kind == "bye")
            handle = self._handlers.get(message.kind)
            if handle is None:
                return  # a newer version's
            if message.kind in _QUESTIONS and not self._is_first(message):
                self._metrics.refused_messages["repeated_question"] += 1
                return
            handle(message)
        except (ValueError, TypeError, IndexError) as error:  # anybody on this Redis may send anything
            self._metrics.refused_messages["bad_control"] += 1
            logger.debug("a message between workers could not be read: %s", error)

    def _heard_of(self, peer: str, leaves: bool) -> None:
        if leaves:
            self._known.pop(peer, None)
            return
        self._known[peer] = asyncio.get_running_loop().time()
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()

    def greet(self) -> None:
        """This worker hears the others from here on: have them say who is there."""
        self._is_back = self._acquainted > -math.inf
        self._acquainted = asyncio.get_running_loop().time() + _ACQUAINTANCE
        self._spawn(self._try(self.everyone, dump("hello", self.name, 0, None)))

    def lost(self) -> None:
        """The connection is lost: no answer will come."""
        for pending in self._pending.values():
            pending.over = True
            pending.changed.set()

    # -- asking

    async def ask(self, questions: Sequence[Question]) -> dict[Question, list[Known]]:
        """What the others know; as few of them as possible are asked for the events."""
        self._metrics.peer_questions += 1
        found: dict[Question, list[Known]] = {question: [] for question in questions}
        wanted = list(questions)
        for _ in range(_ROUNDS):
            coverage = Coverage(wanted)
            await self._ask_all("ask", dump_questions(wanted), _PATIENCE, coverage.add)
            peers = list(coverage.known)
            random.shuffle(peers)  # the same work is not always the same worker's
            chosen: dict[str, list[Question]] = {}
            for place, question in enumerate(wanted):
                known = {peer: ranges for peer in peers if (ranges := coverage.known[peer][place]) is not None}
                for peer in enough(question, known):
                    chosen.setdefault(peer, []).append(question)
            told = await asyncio.gather(*[self._tell_me(peer, part) for peer, part in chosen.items()])
            not_told: dict[Question, None] = {}
            for part, answer in zip(chosen.values(), told, strict=True):
                for question, known_of in answer:
                    found[question].append(known_of)
                not_told |= dict.fromkeys(set(part).difference(question for question, _ in answer))
            # Who knew has gone meanwhile; by now another may know the same.
            wanted = list(not_told)
            if not wanted:
                break
        return found

    async def heard_all(self, start: Position, end: Position) -> bool:
        """Whether some other worker has heard everything between two positions, on what it was subscribed to."""
        answers = await self._ask_all(
            "heard", [*start, *end], _PATIENCE, lambda _, answer: answer == _HEARD, are_known=True
        )
        return _HEARD in answers.values()

    async def leave(self, patience: float) -> None:
        """Have other workers take over what only this one knows.

        Args:
            patience: seconds to wait for them.
        """
        self.leaving = True
        try:
            async with asyncio.timeout(patience):
                heirs, topics = await self._known_here_only()
                if not heirs:
                    return
                wanted: dict[str, list[Question]] = {}
                for topic in topics:
                    wanted.setdefault(_heir(heirs, topic), []).append(self._whole(topic))
                await asyncio.gather(
                    *[
                        self._ask_one(heir, "inherit", dump_questions(questions[at : at + MAX_QUESTIONS]), patience)
                        for heir, questions in wanted.items()
                        for at in range(0, len(questions), MAX_QUESTIONS)
                    ]
                )
        except (RedisError, OSError) as error:  # TimeoutError is one
            logger.warning("not everything was handed over: %s", str(error) or type(error).__name__)

    async def answered(self) -> None:
        """Wait until every question that has come is answered, and say goodbye."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._try(self.everyone, dump("bye", self.name, 0, None))

    async def _ask_all(
        self,
        kind: str,
        body: object,
        patience: float,
        is_enough: Callable[[str, list[object]], bool] = lambda *_: False,
        are_known: bool = False,
    ) -> dict[str, list[object]]:
        """The answers of all workers, or of as many as are enough; with `are_known`, of no more than are known."""
        number, pending = self._open_question()
        pending.text = dump(kind, self.name, number, body)
        loop = asyncio.get_running_loop()
        began = loop.time()
        listeners = 0
        try:
            async with asyncio.timeout(patience):
                listeners = await self._publish_to_workers(pending.text) - 1
                are_known = are_known or loop.time() > self._acquainted
                looked_at: set[str] = set()
                is_known = False
                while not pending.over:
                    pending.changed.clear()
                    for peer in pending.complete - looked_at:
                        looked_at.add(peer)
                        is_known |= is_enough(peer, pending.answers.get(peer, []))
                    if is_known or len(pending.complete) >= listeners:
                        break
                    if are_known and self._known.keys() <= pending.complete:
                        break
                    try:
                        # A worker that starts waits for everybody: it has known nobody before.
                        async with asyncio.timeout_at(self._acquainted if self._is_back and not are_known else None):
                            await pending.changed.wait()
                    except TimeoutError:
                        are_known = True
        except TimeoutError:
            # Who has been heard of since then is there: its connection was lost, too, and the question with it.
            self._known = {peer: at for peer, at in self._known.items() if peer in pending.complete or at >= began}
            logger.warning("%d of %d workers answered within %g s", len(pending.complete), listeners, patience)
        except (RedisError, OSError) as error:
            logger.debug("not all workers have answered: %s", str(error) or type(error).__name__)
        finally:
            del self._pending[number]
        return {peer: pending.answers.get(peer, []) for peer in pending.complete}

    async def _ask_one(self, peer: str, kind: str, body: object, patience: float) -> list[object]:
        number, pending = self._open_question()
        try:
            async with asyncio.timeout(patience):
                if await self._publish(self._own_prefix + peer.encode(), dump(kind, self.name, number, body)):
                    while not pending.complete and not pending.over:
                        pending.changed.clear()
                        await pending.changed.wait()
        except (RedisError, OSError) as error:
            logger.debug("worker %s has not answered: %s", peer, str(error) or type(error).__name__)
            return []
        finally:
            del self._pending[number]
        return pending.answers.get(peer, [])

    async def _tell_me(self, peer: str, questions: list[Question]) -> list[tuple[Question, Known]]:
        told = []
        for value in await self._ask_one(peer, "tell", dump_questions(questions), _PATIENCE):
            try:
                assert isinstance(value, list)
                told.append((questions[value[0]], load_known(value[1])))
            except (ValueError, TypeError, IndexError, AssertionError):
                self._metrics.refused_messages["bad_control"] += 1
        return told

    def _open_question(self) -> tuple[int, _Pending]:
        self._number += 1
        pending = self._pending[self._number] = _Pending()
        return self._number, pending

    def _signed(self, channel: bytes, message: bytes) -> bytes:
        return b"%b %b" % (self._signer.sign(channel, message), message)

    async def _publish(self, channel: bytes, message: bytes) -> int:
        return int(await self._commands.publish(channel, self._signed(channel, message)))

    async def _publish_to_workers(self, message: bytes) -> int:
        """How many have got it.

        Not what PUBLISH answers: that includes whoever listens through a pattern. Counted in the same step: a worker
        that begins to listen in between would be waited for, and has never been asked.
        """
        async with self._commands.pipeline(transaction=True) as transaction:
            transaction.publish(self.everyone, self._signed(self.everyone, message))
            transaction.pubsub_numsub(self.everyone)
            _, [(_, listeners)] = await transaction.execute()
        return int(listeners)

    async def _known_here_only(self) -> tuple[list[str], list[Topic]]:
        """The workers that stay, and the topics of whose past they don't know everything.

        It isn't enough that another listens to a topic: it may have begun later, and a client may come back with an
        id from before.
        """
        known = [topic for topic in self._topics if topic.state is State.OPEN]
        heirs: dict[str, None] = {}
        alone: list[Topic] = []
        for at in range(0, len(known), MAX_QUESTIONS):
            some = known[at : at + MAX_QUESTIONS]
            questions = [self._whole(topic) for topic in some]
            staying = Coverage(questions)
            for peer, answer in (await self._ask_all("stay", dump_questions(questions), _PATIENCE)).items():
                staying.add(peer, answer)
            heirs.update(dict.fromkeys(staying.known))
            for place, (topic, question) in enumerate(zip(some, questions, strict=True)):
                known_of = [each[place] for each in staying.known.values()]
                ranges = [range_ for each in known_of if each is not None for range_ in ranges_of(each)]
                if unknown_parts(question.start, question.end, ranges):
                    alone.append(topic)
        return list(heirs), alone

    def _whole(self, topic: Topic) -> Question:
        """The question about all of an open topic that is known here."""
        end = topic.position(self._listening.era or (0, 0))
        return Question(topic.name, topic.is_pattern, topic.ring.since or end, end)

    # -- answering

    def _is_first(self, message: Message) -> bool:
        """Whether this question has not been asked before: whoever hears one can publish it again and again."""
        key = message.by, message.number, message.kind
        if key in self._answered:
            return False
        self._answered[key] = None
        if len(self._answered) > _ANSWERED:
            self._answered.popitem(last=False)
        return True

    def _on_hello(self, message: Message) -> None:
        if message.by == self.name:
            return
        self._answer(message, "here", None)
        # It hears from here on, and hasn't heard what was asked before.
        for pending in self._pending.values():
            if pending.text and message.by not in pending.complete:
                self._spawn(self._try(self._own_prefix + message.by.encode(), pending.text))

    def _on_ask(self, message: Message) -> None:
        if message.by != self.name:
            # Who is leaving, too, says nothing of what it knows.
            questions = load_questions(message.body) if message.kind == "ask" or not self.leaving else []
            self._answer(message, "known", [dump_ranges(self._know(each)) for each in questions])

    def _on_tell(self, message: Message) -> None:
        self._spawn(self._tell(message, load_questions(message.body)))

    async def _tell(self, message: Message, questions: list[Question]) -> None:
        async with self._telling:
            room = _TOLD_ROOM
            part: list[object] = []
            size = 0
            # Each is looked up when its turn has come, so that no more waits in memory than is being sent.
            for place, question in enumerate(questions):
                known = self._know(question)
                if known is None:
                    continue
                known, used = newest_within(known, room)
                room -= used
                size += used
                part.append([place, dump_known(known)])
                if size > _TOLD_BYTES:
                    await self._send(message, "told", [False, part])
                    part, size = [], 0
            await self._send(message, "told", [True, part])

    def _on_told(self, message: Message) -> None:
        pending = self._pending.get(message.number)
        if pending is not None:
            last, known = message.body
            pending.answers.setdefault(message.by, []).extend(known)
            if last:
                pending.complete.add(message.by)
                pending.changed.set()

    def _on_answer(self, message: Message) -> None:
        pending = self._pending.get(message.number)
        if pending is not None and isinstance(message.body, list):
            pending.answers[message.by] = message.body
            pending.complete.add(message.by)
            pending.changed.set()

    def _on_heard(self, message: Message) -> None:
        if message.by == self.name:
            return
        start, end = load_span(message.body)
        since, era = self._listening.since, self._listening.era
        if since is not None and era is not None and since <= start and end <= Position(*era, 1 << 60):
            self._spawn(self._say_heard(message))
        else:
            # Otherwise the asker, whose streams wait, couldn't tell this worker from a slow one.
            self._answer(message, "missed", [])

    async def _say_heard(self, message: Message) -> None:
        await asyncio.sleep(random.uniform(0, _HEARD_DELAY))
        if (message.by, message.number) not in self._silenced:
            await self._try(self.everyone, dump("did", self.name, message.number, message.by))
        self._silenced.discard((message.by, message.number))

    def _on_did(self, message: Message) -> None:
        if message.body == self.name:
            self._on_answer(message._replace(body=_HEARD))
        elif message.by != self.name and isinstance(message.body, str) and self._tasks:
            self._silenced.add((message.body, message.number))
            if len(self._silenced) > MAX_QUESTIONS:
                self._silenced.clear()

    def _on_inherit(self, message: Message) -> None:
        if not self.leaving:
            self._spawn(self._inherit(message, load_questions(message.body)))
        else:
            self._answer(message, "inherited", [])

    async def _inherit(self, message: Message, questions: list[Question]) -> None:
        taken: list[tuple[Topic, Question]] = []
        for question in questions if len(self._topics) + len(questions) <= self._topics.limit else ():
            if question.name.startswith(RESERVED_PREFIX):  # giving it up later would make this worker deaf
                continue
            topic = self._topics.find(question.name, question.is_pattern)
            wanted = topic is not None and not self._topics.is_idle(topic)
            try:
                topic = self._topics.want(question.name, question.is_pattern)
            except TooManyTopics:  # of patterns there may be fewer
                continue
            if not wanted:
                self._topics.release(topic)
                self._topics.keep(topic, _INHERITED_SECONDS)
            taken.append((topic, question))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while any(topic.state in (State.WANTED, State.CONFIRMED) for topic, _ in taken):  # noqa: ASYNC110
                    await asyncio.sleep(_STEP)  # a tick opens them, a few hundredths of a second away
        asked = {
            Question(topic.name, topic.is_pattern, question.start, topic.ring.since): topic
            for topic, question in taken
            if topic.ring.since is not None and topic.ring.since > question.start
        }
        for question, answers in (await self.ask(list(asked))).items() if asked else ():
            for known in answers:
                # Only what reaches up to where this worker's own memory begins can go in front of it.
                if known.end == question.end:
                    asked[question].ring.learn(known.start, known.end, list(known.kept))
                    break
        await self._send(message, "inherited", [])

    def _know(self, question: Question) -> Known | None:
        """What this worker knows of it."""
        topic = self._topics.find(question.name, question.is_pattern)
        era = self._listening.era
        if topic is None or topic.state is not State.OPEN or era is None:
            return None
        assert topic.ring.since is not None
        begin, to = max(question.start, topic.ring.since), min(question.end, topic.position(era))
        if begin >= to:
            return None
        return Known(begin, to, topic.ring.between(begin, to))

    def _answer(self, message: Message, kind: str, body: object) -> None:
        self._spawn(self._send(message, kind, body))

    async def _send(self, message: Message, kind: str, body: object) -> None:
        await self._try(self._own_prefix + message.by.encode(), dump(kind, self.name, message.number, body))

    async def _try(self, channel: bytes, message: bytes) -> None:
        try:
            await self._publish(channel, message)
        except (RedisError, OSError) as error:
            logger.debug("could not answer another worker: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= _MAX_TASKS:
            work.close()
            self._metrics.refused_messages["too_many_questions"] += 1
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _heir(heirs: Iterable[str], topic: Topic) -> str:
    """Rendezvous hashing: each topic has its own order of the workers, and the first of them takes it over."""
    return max(heirs, key=lambda heir: blake2b(f"{heir} {topic.name}".encode(), digest_size=8).digest())
