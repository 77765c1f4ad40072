"""The one way into a stream: topics open, then what was missed, `gateway.open`, and live from there.

The same for new streams, for clients that come back, and for all streams of a worker that lost its connection to
Redis. What a stream waits for is found out first; then, with nothing awaited in between, its replay is taken from the
rings and it joins. While anybody waits, the rings of its topics keep what comes.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat

from gateway.fanout.beginning import NOTHING, Beginning, Ready
from gateway.fanout.budget import Budget
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encoding
from gateway.fanout.endings import Endings, all_over
from gateway.fanout.in_band import closing
from gateway.fanout.inquiry import Inquiry
from gateway.fanout.long_replays import LongReplays
from gateway.fanout.members import ENDED, Members
from gateway.fanout.replays import Replays
from gateway.fanout.returning import Returning
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import Over, TurnedAway
from gateway.fanout.unsent import Piece
from gateway.fanout.waiting import Waiting
from gateway.memory.catch_up import Wish
from gateway.memory.event import Event
from gateway.memory.listening import Listening
from gateway.memory.place import NO_SUFFIX, Suffix
from gateway.memory.replay import Replayed
from gateway.memory.topic import Topic, pin, unpin
from gateway.metrics import Metrics
from gateway.pace import Pace
from gateway.ports import Clock, Ends, Past, TooManyTopics, Topics
from gateway.settings import Settings

_MOST_LONG_REPLAYS = 5
"""Of one stream, each from where the one before ended."""


class Admission:
    """Lets subscribers in.

    Args:
        settings: limits and times.
        members: who listens.
        delivery: hands out what comes.
        topics: told of what is wanted.
        listening: what has been heard.
        flush: has everything delivered that has been counted.
        clock: Redis' clock.
        past: what others know.
        ends: which channels are over.
        metrics: where replays and gaps are counted.
        monotonic: event loop time.

    Attributes:
        long: the replays that take long.
    """

    def __init__(
        self,
        settings: Settings,
        members: Members,
        delivery: Delivery,
        topics: Topics,
        listening: Listening,
        flush: Callable[[], None],
        clock: Clock,
        past: Past,
        ends: Ends,
        metrics: Metrics,
        monotonic: Callable[[], float],
    ) -> None:
        self.deliver = delivery.deliver
        self.commit = delivery.commit
        self.ticked = delivery.ticked
        self._settings = settings
        self._members = members
        self._delivery = delivery
        self._topics = topics
        self._listening = listening
        self._flush = flush
        self._monotonic = monotonic
        self._budget = Budget(settings.accept_rate, monotonic)
        self._waiting = Waiting(members, monotonic)
        self._inquiry = Inquiry(settings, listening, clock, past, monotonic)
        self._pace = Pace()
        self.long = LongReplays(settings, listening, flush, self._inquiry, members.unsent, self._pace)
        self._replays = Replays(settings, listening, flush, self._inquiry, self.long, metrics)
        self._endings = Endings(members, listening, ends, delivery.settle, monotonic)
        self.over = self._endings.over
        self._returning = Returning(
            members, delivery, self._replays, self.long, self._inquiry, self._endings, self.close
        )
        self._turn = asyncio.Lock()

    # -- new streams

    def register(
        self, channels: Iterable[str], patterns: Iterable[str], encoding: Encoding, suffix: Suffix = NO_SUFFIX
    ) -> Subscriber:
        """A subscriber: Redis is asked for what it wants. It gets nothing until it has begun.

        Args:
            suffix: what its ids end with. If that is a proof, the wish with which it begins has to have it, too.

        Raises:
            TurnedAway: draining, or a limit of this worker is reached.
        """
        if self._members.draining:
            raise TurnedAway("draining")
        if self._members.full:
            raise TurnedAway("full")
        if not self._budget.take():
            raise TurnedAway("busy")
        topics: list[Topic] = []
        try:
            for name, is_pattern in chain(zip(channels, repeat(False)), zip(patterns, repeat(True))):
                topic = self._topics.want(name, is_pattern)
                topics.append(topic)  # at once: if the next one is too many, this one must be released
        except TooManyTopics:
            for topic in topics:
                if self._members.audience(topic) is None:
                    self._topics.release(topic)
            raise TurnedAway("full") from None
        return self._members.register(topics, encoding, suffix)

    def begin_now(self, subscriber: Subscriber, wish: Wish) -> bytes | None:
        """What the stream begins with, as almost always it can be said at once; the subscriber has joined.

        None: `begin` has to be awaited.
        """
        if not all(topic.heard and topic.over is False for topic in subscriber.topics):
            return None
        if wish.from_now:
            self._flush()
            return self._admitted(subscriber, NOTHING)
        beginning = Beginning(subscriber.topics, subscriber.encoding, wish)
        if self._replays.is_long(beginning):  # hundreds may come in this turn of the loop
            return None
        step = self._replays.step(beginning)
        return self._admitted(subscriber, step, beginning) if isinstance(step, Ready) else None

    async def begin(self, subscriber: Subscriber, wish: Wish) -> bytes:
        """The same, after everything that has to be waited for.

        Raises:
            TurnedAway: not within the setting `subscribe_timeout`, or it has left before; the subscriber is gone.
            TopicRefused: Redis refuses one of its topics; the subscriber is gone.
            Over: nothing is to come any more on any of them; the subscriber is gone.
        """
        deadline = self._monotonic() + self._settings.subscribe_timeout
        try:
            if not wish.from_now:
                return await self._catch_up(subscriber, wish, deadline)
            is_sure = False
            while True:
                await self._until_known(subscriber, deadline)
                self._flush()
                if not all_over(subscriber.topics) or wish.told_of_end:
                    return self._admitted(subscriber, NOTHING)
                if is_sure:
                    raise Over
                is_sure = await self._has_heard_all(deadline)
        except Over:
            self._members.leave(subscriber, ENDED)
            raise
        except TurnedAway as refusal:
            self._members.leave(subscriber, refusal.reason)
            raise
        except TimeoutError:
            self._members.leave(subscriber, "behind")
            raise TurnedAway("behind") from None
        except asyncio.CancelledError:
            self._members.leave(subscriber, "client")
            raise

    async def _until_known(self, subscriber: Subscriber, deadline: float) -> None:
        """Wait until its topics are open, and it is known which are over."""
        while True:
            await self._waiting.until_open(subscriber, deadline)
            await self._endings.know(subscriber.topics, deadline)
            if all(topic.heard and topic.over is not None for topic in subscriber.topics):
                return

    async def _has_heard_all(self, deadline: float) -> bool:
        """Hear everything that was published before now: nobody comes back who was told that a channel is over."""
        async with asyncio.timeout_at(deadline):
            await self._inquiry.hear_all()
        return True

    async def _catch_up(self, subscriber: Subscriber, wish: Wish, deadline: float) -> bytes:
        patience = self._settings.subscribe_timeout
        beginning = Beginning(subscriber.topics, subscriber.encoding, wish)
        is_sure = False
        pin(subscriber.topics)
        try:
            while True:
                await self._until_known(subscriber, deadline)
                if self._replays.is_long(beginning):
                    await self._pace.turn()
                    if not all(topic.heard for topic in subscriber.topics):
                        continue
                step = self._replays.step(beginning)
                if isinstance(step, Ready):
                    has_all = not step.events and not beginning.before
                    if has_all and all_over(subscriber.topics) and not wish.told_of_end:
                        if is_sure:
                            raise Over
                        is_sure = await self._has_heard_all(deadline)
                        continue
                    return self._admitted(subscriber, step, beginning)
                is_late = self._monotonic() >= deadline or len(beginning.before) == _MOST_LONG_REPLAYS
                if subscriber.closed is not None or is_late:
                    raise TurnedAway("draining" if self._members.draining else "behind")
                if step is not None:
                    async with asyncio.timeout_at(deadline + patience):
                        await self._inquiry.satisfy([(beginning.state, step)])
                    continue
                prepared = await self._waiting.unless_left(subscriber, self.long.prepare(beginning))
                if prepared is not None:
                    async with self._turn:  # hundreds may have waited for it
                        await asyncio.sleep(0)
                    deadline = self._monotonic() + patience
                elif self._members.draining:
                    raise TurnedAway("draining")
                beginning.follow(prepared)
        finally:
            unpin(subscriber.topics)

    def _admitted(self, subscriber: Subscriber, step: Ready, beginning: Beginning | None = None) -> bytes:
        """Let it join; returns what its stream begins with."""
        before = beginning.before if beginning is not None else []
        suffix = beginning.state.suffix if beginning is not None else subscriber.suffix
        for each in before:
            self._replays.count(each)
        self._replays.count(step)
        if suffix.new:
            self._members.include(subscriber, suffix.new)
        encoding = subscriber.encoding
        last = step.piece + self._replays.opened(subscriber.topics, encoding, suffix)
        if any(topic.over for topic in subscriber.topics):
            last += self._replays.ended(beginning or Beginning(subscriber.topics, encoding, Wish()), step, suffix)
            self._endings.look_at(subscriber)
        if beginning is not None and before and subscriber.closed is None:
            pieces = chain(beginning.pieces(), [Piece(self.long.room, last)])
            self._delivery.begin_with(subscriber, pieces)
        self._members.join(subscriber)
        return encoding.header if before else encoding.header + last

    def close(self, subscriber: Subscriber, reason: str, told: str) -> None:
        """End a stream cleanly, whose client is to reconnect with the id that it gets here.

        Args:
            reason: for the metric.
            told: the reason in `gateway.closing`.
        """
        retry = random.uniform(self._settings.retry_min, self._settings.retry_max)
        piece = subscriber.encoding.encode([Replayed("", closing(told, retry), self._id_now(subscriber))])
        self._members.end(subscriber, reason, piece)

    def tell(self, subscriber: Subscriber, event: Event) -> bool:
        """Send a stream one of the gateway's own events, with the id that it has now.

        Returns:
            Whether that could be done: before the stream has begun it would skip what it begins with.
        """
        if subscriber.closed is not None or (subscriber.left_at is None and not self._members.has_joined(subscriber)):
            return False
        piece = subscriber.encoding.encode([Replayed("", event, self._id_now(subscriber))])
        self._delivery.send([subscriber], piece, 1)
        return True

    # -- what comes from Redis

    def opened(self, topics: Sequence[Topic]) -> None:
        """Everything published on them from now on is heard."""
        for topic in topics:
            self._waiting.topic_changed(topic)
        self._returning.go_on()

    def refused(self, topic: Topic) -> None:
        """Redis does not let us subscribe to the topic: nobody may go on as if something could still come."""
        self._waiting.topic_changed(topic)
        for subscriber in self._members.of(topic):
            if subscriber.sink is not None:
                self.close(subscriber, "refused", "redis_denied")

    def lost(self) -> None:
        """The connection is lost: every stream goes on from where it is, as if its client had come back."""
        for topics in {subscriber.topics for subscriber in self._members.all()}:
            self._delivery.settle(topics)
        for subscriber in self._members.all():
            if subscriber.left_at is None and self._members.has_joined(subscriber):
                self._returning.interrupt(subscriber, self._id_of(subscriber))
        self._returning.stop()

    # -- times

    def sweep(self) -> None:
        """Wake who has waited long enough, and forget; to be called every second or so."""
        self._replays.sweep()
        self.long.sweep()
        self._waiting.sweep()

    def drain(self) -> list[Subscriber]:
        """Take nobody any more, and turn those away who are still waiting.

        Returns:
            Those whose streams are to be ended.
        """
        self._members.draining = True
        self._waiting.wake_all()
        return self._members.all()

    def _id_now(self, subscriber: Subscriber) -> str:
        """Its id after everything that has come so far, which has been sent to it."""
        if subscriber.left_at is not None:
            return subscriber.left_at
        self._flush()
        self._delivery.settle(subscriber.topics)
        return self._id_of(subscriber)

    def _id_of(self, subscriber: Subscriber) -> str:
        return self._listening.id_of(subscriber.topics, subscriber.suffix)
