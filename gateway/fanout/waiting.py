"""New streams that wait: for Redis to confirm their channels, or for a long replay."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import TopicRefused, TurnedAway
from gateway.memory.topic import State, Topic

_Result = TypeVar("_Result")


class Waiting:
    """Those who wait. There is no timer for each: thousands may wait for the same answer of Redis.

    Args:
        members: who listens; who leaves waits no more.
        monotonic: event loop time.
    """

    def __init__(self, members: Members, monotonic: Callable[[], float]) -> None:
        self._members = members
        self._monotonic = monotonic
        self._waiting: dict[Subscriber, tuple[asyncio.Future[None], float]] = {}
        self._by_topic: dict[Topic, dict[Subscriber, None]] = {}
        members.on_leave.append(self._wake)

    async def until_open(self, subscriber: Subscriber, deadline: float) -> None:
        """Wait until everything published on its topics is heard.

        Raises:
            TurnedAway: not before the deadline, or it has left; the subscriber is gone.
            TopicRefused: Redis refuses one of its topics; the subscriber is gone.
        """
        # A connection lost meanwhile takes confirmations back, hence the loop.
        while topic := next((topic for topic in subscriber.topics if not topic.heard), None):
            if refusal := next((topic.refusal for topic in subscriber.topics if topic.state is State.REFUSED), None):
                self._members.leave(subscriber, "refused")
                raise TopicRefused(refusal)
            if self._members.draining or subscriber.closed is not None or self._monotonic() >= deadline:
                reason = "draining" if self._members.draining else "redis_away"
                self._members.leave(subscriber, reason)
                raise TurnedAway(reason)
            future = asyncio.get_running_loop().create_future()
            self._waiting[subscriber] = (future, deadline)
            self._by_topic.setdefault(topic, {})[subscriber] = None
            try:
                await future
            finally:
                self._waiting.pop(subscriber, None)
                if others := self._by_topic.get(topic):
                    others.pop(subscriber, None)
                    if not others:
                        del self._by_topic[topic]

    async def unless_left(self, subscriber: Subscriber, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """The result of some work; None if the subscriber has left before, or the worker drains."""
        task = asyncio.create_task(work)
        future = asyncio.get_running_loop().create_future()
        self._waiting[subscriber] = (future, math.inf)
        task.add_done_callback(lambda _: self._wake(subscriber))
        try:
            await future
            return task.result() if task.done() else None
        finally:
            self._waiting.pop(subscriber, None)
            task.cancel()
            task.add_done_callback(_look_at)
            del task  # it would hold its error, and that all this

    def topic_changed(self, topic: Topic) -> None:
        """It has opened, or is refused."""
        for subscriber in self._by_topic.pop(topic, ()):
            self._wake(subscriber)

    def sweep(self) -> None:
        """Wake who has waited long enough; to be called every second or so."""
        now = self._monotonic()
        for subscriber in [each for each, (_, deadline) in self._waiting.items() if deadline <= now]:
            self._wake(subscriber)

    def wake_all(self) -> None:
        """The worker drains."""
        for subscriber in list(self._waiting):
            self._wake(subscriber)

    def _wake(self, subscriber: Subscriber) -> None:
        waiting = self._waiting.get(subscriber)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(None)


def _look_at(task: asyncio.Task[Any]) -> None:
    """The loop would complain that nobody looked."""
    if not task.cancelled():
        task.exception()
