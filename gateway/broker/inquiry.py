"""Asking the other workers about channels that this one begins to listen to while it runs.

A client that comes back may be the first to want its channel here, while the worker it was on has listened to it all
along. What that one knows is fetched before the channel counts as subscribed to, so that the client finds its place
and the ids of what follows are alike on both.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.exceptions import RedisError

from gateway.broker.durable import Durable
from gateway.broker.handover import Handover, Question
from gateway.fanout.contracts import Listener, Publication
from gateway.fanout.record import TopicRecord
from gateway.fanout.topic import Topic

logger = logging.getLogger(__name__)

_PATIENCE = 1.0
"""Seconds. A client is waiting, and what comes of it without an answer is an announced gap."""
_MOST_CHANNELS = 1000
"""In one question."""
_MAX_HELD = 20_000
"""Messages."""


class _Held(NamedTuple):
    number: int
    publication: Publication


class _Deferred(NamedTuple):
    """A question to be answered once this worker's own is.

    Attributes:
        question: it.
        parts: what this worker knew of other channels when it came.
        topics: those it has to wait for.
        place: how many messages had been held by then.
    """

    question: Question
    parts: list[bytes]
    topics: list[Topic]
    place: int


class Inquiry:
    """Channels that Redis has confirmed and that are not open yet, and what has come on them meanwhile.

    Two workers may begin with a channel at the same time and ask each other. Redis puts their questions in an order:
    who asked first is told nothing by the second, and tells the second what came of it. So nobody waits for ever, and
    both go on with the same ids.

    Args:
        listener: told of what arrived.
        handover: carries questions and answers.
        durable: asked how many listen to a channel.
        deliver: takes what was held.
    """

    def __init__(
        self,
        listener: Listener,
        handover: Handover,
        durable: Durable,
        deliver: Callable[[list[Publication]], None],
    ) -> None:
        self._listener = listener
        self._handover = handover
        self._durable = durable
        self._deliver = deliver
        self._changed = asyncio.Event()
        # Whether another worker has asked about it, so that this one is not alone whatever Redis has said before.
        self._fresh: dict[Topic, bool] = {}
        self._asked: dict[Topic, None] = {}
        self._came_back = False
        self._held: list[_Held] = []
        self._count = self._before = 0
        self._deferred: list[_Deferred] = []

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._fresh

    def add(self, topic: Topic) -> None:
        """Redis has confirmed the topic for the first time."""
        self._fresh[topic] = False
        self._changed.set()

    def discard(self, topic: Topic) -> None:
        """The topic was given up."""
        if self._fresh.pop(topic, None) is not None:
            self._held = [held for held in self._held if topic not in held.publication.topics]

    def hold(self, publication: Publication) -> None:
        """Keep a message on one of the channels until the channel is open."""
        self._count += 1
        self._held.append(_Held(self._count, publication))
        if len(self._held) > _MAX_HELD:
            self.open_all()

    def clear(self) -> None:
        """The connection is lost: Redis will be asked for all of it again."""
        self._fresh.clear()
        self._forget_question()
        self._held.clear()

    def open_all(self) -> None:
        """Go on without what others know."""
        self._open(list(self._fresh), [])
        self._forget_question()

    def _question_came_back(self) -> None:
        self._came_back = True
        self._before = self._count

    def question_came(self, question: Question) -> None:
        """Answer another worker's question, now or as soon as this worker's own about the same is answered."""
        if question.after is not None:  # about what somebody has had: a channel that isn't open yet has had nothing
            self._handover.answer(question, self._listener.export(question.channels, question.after, question.room))
            return
        parts = self._listener.export(question.channels, None, question.room)
        concerned = [topic for topic in self._fresh if question.channels is None or topic.name in question.channels]
        asked = [topic for topic in concerned if topic in self._asked] if self._came_back else []
        self._fresh.update(dict.fromkeys((topic for topic in concerned if topic not in asked), True))
        if asked:
            self._deferred.append(_Deferred(question, parts, asked, self._count))
        else:
            self._handover.answer(question, parts)

    async def run(self) -> None:
        """Ask about what comes in, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._fresh:
                topics = list(self._fresh)[:_MOST_CHANNELS]
                alone = await self._alone(topics)
                self._open([topic for topic in topics if topic in alone and self._fresh.get(topic) is False], [])
                if topics := [topic for topic in topics if topic in self._fresh]:  # else others came in meanwhile
                    await self._ask(topics)

    async def _alone(self, topics: Sequence[Topic]) -> set[Topic]:
        """Those to which nobody else listens."""
        if not self._handover.enabled:
            return set(topics)
        try:
            listeners = await self._durable.listeners([topic.name for topic in topics])
        except (RedisError, OSError) as error:
            logger.debug("could not ask Redis who else listens: %s", error)
            return set()
        return {topic for topic, count in zip(topics, listeners, strict=True) if count <= 1}

    async def _ask(self, topics: list[Topic]) -> None:
        self._asked = dict.fromkeys(topics)
        names = [topic.name for topic in topics]
        answers = await self._handover.ask(names, _PATIENCE, self._question_came_back)
        self._open([topic for topic in topics if topic in self._fresh], answers)
        self._forget_question()

    def _forget_question(self) -> None:
        self._asked = {}
        self._came_back = False
        for deferred in self._deferred:  # only if the question was given up
            self._handover.answer(deferred.question, deferred.parts)
        self._deferred.clear()

    def _open(self, topics: list[Topic], answers: list[list[TopicRecord]]) -> None:
        if not topics:
            return
        self._deliver([])  # what has come on other channels has its place before theirs
        known = self._listener.take_over(topics, answers)
        for topic in topics:
            del self._fresh[topic]
            self._listener.opened(topic)
        mine = [held for held in self._held if held.publication.topics[0] not in self._fresh]
        self._held = [held for held in self._held if held.publication.topics[0] in self._fresh]
        # What was held before the question came back is in the answers.
        mine = [held for held in mine if held.number > self._before or held.publication.channel not in known]
        for deferred in self._deferred if self._came_back else ():
            self._deliver([held.publication for held in mine if held.number <= deferred.place])
            mine = [held for held in mine if held.number > deferred.place]
            names = [topic.name for topic in deferred.topics]
            rest = max(0, deferred.question.room - sum(map(len, deferred.parts)))
            self._handover.answer(deferred.question, deferred.parts + self._listener.export(names, None, rest))
        if self._came_back:
            self._deferred.clear()
        self._deliver([held.publication for held in mine])
        self._listener.caught_up(topics)
