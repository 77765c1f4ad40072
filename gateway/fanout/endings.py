"""Streams all of whose channels are over: they end, and nobody waits on them for what will never come."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gateway.fanout.members import ENDED, Members
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import TurnedAway
from gateway.memory.listening import Listening
from gateway.memory.topic import Topic
from gateway.ports import Ends, StoreFailed

logger = logging.getLogger(__name__)

_AT_ONCE = 100
"""Streams ended in one turn of the event loop."""
_MOST_ASKED = 1000
"""Channels asked about in one command."""
_LOOK_AGAIN = 0.05
"""Seconds until a stream that has not begun is looked at again."""
_ASK_AGAIN = 0.2
"""Seconds until Redis is asked again that could not be asked."""


def all_over(topics: Iterable[Topic]) -> bool:
    """Whether nothing can come any more on any of them, as far as this worker knows."""
    return all(topic.over for topic in topics)


class Endings:
    """Knows which channels are over, and ends streams.

    Whether a channel is over stands in Redis. A worker asks once, when it has begun to hear the channel; from then on
    it hears the end, and what is published after it.

    Args:
        members: whose streams are ended.
        listening: what has been heard.
        ends: what Redis knows.
        settle: finishes what is under way on some topics.
        monotonic: event loop time.
    """

    def __init__(
        self,
        members: Members,
        listening: Listening,
        ends: Ends,
        settle: Callable[[Iterable[Topic]], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._members = members
        self._listening = listening
        self._ends = ends
        self._settle = settle
        self._monotonic = monotonic
        self._ending: deque[Subscriber] = deque()
        self._is_scheduled = False
        self._unknown: dict[Topic, None] = {}
        self._asking: asyncio.Task[None] | None = None

    async def know(self, topics: Sequence[Topic], deadline: float) -> None:
        """Find out which of them are over. All of them have to be heard.

        Raises:
            TurnedAway: that could not be found out before the deadline.
        """
        while unknown := [topic for topic in topics if topic.over is None and topic.heard]:
            # Those who come at the same time ask together.
            self._unknown.update(dict.fromkeys(unknown))
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
                self._asking.add_done_callback(_look_at)
            try:
                await asyncio.shield(self._asking)
            except StoreFailed:
                if self._monotonic() >= deadline:
                    raise TurnedAway("redis_away") from None
                await asyncio.sleep(_ASK_AGAIN)

    def over(self, topics: Iterable[Topic]) -> None:
        """These channels are over, and everybody has been sent that; end the streams that wait for nothing else."""
        for topic in topics:
            audience = self._members.audience(topic)
            for subscriber in audience.everybody() if audience is not None else ():
                self.look_at(subscriber)

    def look_at(self, subscriber: Subscriber) -> None:
        """End a stream soon if all its channels are over."""
        if all_over(subscriber.topics):
            self._ending.append(subscriber)
            self._schedule(0.0)

    async def _ask(self) -> None:
        await asyncio.sleep(0)
        asked, self._unknown, self._asking = list(self._unknown), {}, None
        epoch = self._listening.epoch
        for at in range(0, len(asked), _MOST_ASKED):
            some = asked[at : at + _MOST_ASKED]
            over = await self._ends.over([topic.name for topic in some])
            if epoch != self._listening.epoch:
                return
            for topic, is_over in zip(some, over, strict=True):
                if topic.over is None:  # else it has been heard meanwhile, and what is heard is newer
                    topic.over = is_over

    def _schedule(self, delay: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(delay, self._end_some)

    def _end_some(self) -> None:
        self._is_scheduled = False
        some = [self._ending.popleft() for _ in range(min(_AT_ONCE, len(self._ending)))]
        not_begun = [each for each in some if each.sink is None and each.closed is None]
        ready = [each for each in some if each.sink is not None and each.closed is None and all_over(each.topics)]
        self._settle({topic for subscriber in ready for topic in subscriber.topics})
        for subscriber in ready:
            if subscriber.left_at is None:  # else it goes on once Redis is back, and is looked at again
                self._members.end(subscriber, ENDED)
        self._ending.extend(not_begun)
        if self._ending:
            self._schedule(_LOOK_AGAIN if len(self._ending) == len(not_begun) else 0.0)


def _look_at(task: asyncio.Task[None]) -> None:
    """Whoever asked may have left; the loop would complain that nobody looked."""
    if not task.cancelled():
        task.exception()
