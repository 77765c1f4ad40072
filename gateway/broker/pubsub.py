"""The worker's one subscribing connection to Redis."""

import asyncio
import contextlib
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Sequence

from redis.asyncio import Connection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from gateway.broker.canary import Canary
from gateway.broker.client import connection_pool, glob_escape, new_connection, without_password
from gateway.broker.durable import Durable
from gateway.broker.handover import Handover, Question
from gateway.broker.inquiry import Inquiry
from gateway.fanout.contracts import Listener, Publication
from gateway.fanout.ids import DurableId
from gateway.fanout.interest import Interest, TooManyTopics
from gateway.fanout.names import check_clean
from gateway.fanout.past import Past, PastUnavailable
from gateway.fanout.record import PeerPast, TopicRecord
from gateway.fanout.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_FIRST_BACKOFF = 0.05
_NAMES_PER_COMMAND = 1000
_NO_PROBLEM_YET = "not connected to Redis yet"
_WARMING = "listening to what the other workers listen to"
_RECOVERING = "fetching what was missed while Redis was away"
_RECOVERY_TIMEOUT = 5.0
_SETTLE_STEP = 0.02
_CLOCKS_APART_MS = 5_000
_PATIENCE = _RECOVERY_TIMEOUT + 1.0
"""Seconds a worker that starts waits for the others: one that has just lost its connection answers only when it has
filled in what it missed. One that hangs must not keep it from starting."""
_ASK_ABOUT_ALL = 2
"""Times. Many busy workers answer with more than Redis lets wait for one connection (client-output-buffer-limit), so
it closes it; who asked for that again and again would never start."""
_PEERS_PATIENCE = 1.0
"""Seconds a client that comes back waits for what other workers know."""
_MAX_HELD = 20_000
"""Messages held back while the hole before them is filled."""

_Key = tuple[bool, bytes]
"""Whether it is a pattern, and its name in Redis."""


class PubSub:
    """Keeps what Redis sends in step with what the worker wants, for ever.

    One task owns the connection. It reconciles: new topics are subscribed to, topics nobody wants any more are
    given up, and after a lost connection everything is asked for again. What arrives together is delivered
    together.

    Args:
        settings: where Redis is.
        interest: what is wanted.
        listener: told of what arrived.
        canary: watches over the connection.
        handover: asks the other workers what they know.
        durable: asked for what was missed while the connection was lost.
        metrics: where connects and failures are counted.
    """

    def __init__(
        self,
        settings: Settings,
        interest: Interest,
        listener: Listener,
        canary: Canary,
        handover: Handover,
        durable: Durable,
        metrics: Metrics,
    ) -> None:
        self._interest = interest
        self._listener = listener
        self._canary = canary
        self._handover = handover
        # The gateway's own channels are no topics: what comes on them is for this class.
        self._own = {
            canary.channel: self._canary_came,
            handover.questions: self._question_came,
            handover.answers: handover.answered,
        }
        self._durable = durable
        self._metrics = metrics
        # No timeout of redis-py's: its writes then go through asyncio.wait_for, which before Python 3.12 loses a
        # cancellation that comes as the write completes (bpo-37658), and the task group would wait for ever.
        self._pool = connection_pool(settings, 1, socket_timeout=None)
        self._connect_timeout = settings.redis_connect_timeout
        self._url = without_password(settings.redis_url)
        self._warm_channels = settings.warm_channels
        self._backoff_max = settings.redis_backoff_max
        self._prefix = settings.channel_prefix.encode()
        self._pattern_prefix = glob_escape(self._prefix)
        # What was asked for on this connection and not given up, by its name in Redis.
        self._subscribed: dict[_Key, Topic] = {}
        # Commands sent and not yet answered. A topic counts as confirmed only when none is left: the answer
        # to an earlier SUBSCRIBE must not speak for one sent after an UNSUBSCRIBE.
        self._unanswered: Counter[_Key] = Counter()
        # The same commands in the order they were sent, because an error names neither command nor channel.
        self._commands: deque[_Command] = deque()
        # Topics of refused commands: asked for again one by one, so that a forbidden one harms no other.
        self._refused: list[Topic] = []
        self._batch: list[Publication] = []
        self._last: Publication | None = None
        self._problem: str | None = _NO_PROBLEM_YET
        self._warm = False
        self._asked_about_all = 0
        # Whether anybody may have heard something already, and would miss what a lost connection costs.
        self._was_listening = False
        # While true, what comes is held back: the hole before it has to be filled first.
        self._holding = False
        self._held_before_question = 0
        # Questions of workers that start, which came meanwhile, and how much was held before each.
        self._held_questions: list[tuple[int, Question]] = []
        self._inquiry = Inquiry(listener, handover, durable, self._deliver_now)
        # Confirmed meanwhile. New clients wait for that too, or they would get what fills the hole twice.
        self._opened_later: dict[Topic, None] = {}

    @property
    def problem(self) -> str | None:
        """Why no messages can arrive just now; None while they can."""
        return self._problem

    async def after(self, channels: Sequence[str], last_event_id: str) -> PeerPast | None:
        """What the other workers know that came after an id this one doesn't know."""
        places: list[int] = []

        def came_back() -> None:
            # While messages are held back, some of those before the question are still to be delivered here.
            if not self._holding:
                places.append(self._listener.place)

        answers = await self._handover.ask(channels, _PEERS_PATIENCE, came_back, last_event_id)
        # The one that knows most of the channels; between the events of two nobody knows the order.
        best = max(answers, key=len, default=[])
        return PeerPast(places[0], {record.name: record for record in best}) if best and places else None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = _FIRST_BACKOFF
        while True:
            connection = new_connection(self._pool)
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await connection.connect()  # type: ignore[no-untyped-call]
                self._begin()
                backoff = _FIRST_BACKOFF
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(connection))
                    await self._subscribe_own(connection)
                    if not self._warm:
                        await self._warm_up()
                    tasks.create_task(self._reconcile(connection))
                    tasks.create_task(self._canary.watch())
                    tasks.create_task(self._settle())
            except* (RedisError, OSError) as errors:
                self._failed(_first(errors))
            except* Exception as errors:  # an answer nobody expected: without this the worker would stay deaf
                logger.exception("the connection to Redis failed in an unknown way")
                self._failed(_first(errors))
            finally:
                if self._holding:
                    # Delivered now, this would hide the hole before it; the next connection fetches it again.
                    self._batch.clear()
                    self._held_questions.clear()
                    self._opened_later.clear()
                self._inquiry.clear()
                self._flush()
                self._interest.unconfirm_all()
                await connection.disconnect(nowait=True)
            # Full jitter, so that a fleet of workers doesn't return in step.
            await asyncio.sleep(random.uniform(backoff / 2, backoff))
            backoff = min(backoff * 2, self._backoff_max)

    def _begin(self) -> None:
        logger.info("connected to Redis at %s", self._url)
        self._metrics.redis_connects += 1
        self._problem = _RECOVERING if self._was_listening else _WARMING
        # When it starts, what comes is held back too, until the other workers have said what came before.
        self._holding = True
        self._held_before_question = 0
        self._subscribed.clear()
        self._unanswered.clear()
        self._commands.clear()
        self._refused.clear()
        self._last = None

    def _failed(self, error: Exception) -> None:
        problem = _explain(error)
        self._metrics.redis_failures[type(error).__name__] += 1
        if problem != self._problem:  # once, not at every attempt
            level = logging.ERROR if isinstance(error, ResponseError) else logging.WARNING
            logger.log(level, "Redis at %s: %s; trying again until it works", self._url, problem)
        self._problem = problem

    async def _read(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Returns without yielding while whole replies are there already, so that the batch scheduled for
            # the loop's next turn holds all that arrived together.
            try:
                reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            except NoPermissionError as error:
                self._refuse(str(error))
                continue
            self._canary.heard()
            kind = reply[0]
            if kind == b"message":
                topic = self._subscribed.get((False, reply[1]))
                if topic is None:
                    if (handle := self._own.get(reply[1])) is not None:
                        self._flush()
                        try:
                            handle(reply[2])
                        except Exception:  # a fault of ours, or somebody else's message: no reason to be deaf
                            logger.exception("a message on %r could not be handled", reply[1])
                    continue
                publication = Publication(topic.name, reply[2], (topic,))
                if topic in self._inquiry:
                    self._inquiry.hold(publication)
                    continue
            elif kind == b"pmessage":
                merged = self._from_pattern(*reply[1:])
                if merged is None:
                    continue
                publication = merged
            else:
                self._flush()
                self._answered(kind, reply[1])
                continue
            self._last = publication
            self._batch.append(publication)
            if len(self._batch) == 1:
                loop.call_soon(self._flush)
            elif len(self._batch) > _MAX_HELD:
                self._give_up_recovery()

    def _from_pattern(self, pattern: bytes, name: bytes, payload: bytes) -> Publication | None:
        """A message heard through a pattern, unless it could be joined to the same message heard before.

        Redis sends a message for the exact channel first, then once for each matching pattern, with nothing in
        between (pubsub.c, pubsubPublishMessage), so the same message follows itself.
        """
        topic = self._subscribed.get((True, pattern))
        if topic is None:
            return None
        try:
            channel = name[len(self._prefix) :].decode()
            check_clean(channel)
        except ValueError:
            self._metrics.refused_messages["bad_channel"] += 1
            return None
        last = self._last
        if (
            last is None
            or last.channel != channel
            or last.payload != payload
            or topic in last.topics
            or topic in last.seen
        ):
            return Publication(channel, payload, (topic,))
        if not self._batch:  # its first part went out with an earlier batch
            return Publication(channel, payload, (topic,), (*last.seen, *last.topics))
        self._batch[-1] = self._last = last._replace(topics=(*last.topics, topic))
        return None

    def _flush(self) -> None:
        if self._batch and not self._holding:
            batch, self._batch = self._batch, []
            self._deliver(batch)

    def _deliver_now(self, batch: list[Publication]) -> None:
        self._flush()
        self._deliver(batch)

    def _deliver(self, batch: Sequence[Publication]) -> None:
        try:
            self._listener.deliver(batch)
        except Exception:  # a fault of ours must not cost the connection
            logger.exception("delivering %d messages failed", len(batch))

    def _answered(self, kind: bytes, name: bytes) -> None:
        command = self._commands[0]
        command.unanswered -= 1
        if not command.unanswered:
            self._commands.popleft()
        key = (kind.startswith(b"p"), name)
        if self._is_last_answer(key):
            topic = self._subscribed.get(key)
            if topic is not None and self._holding:
                self._opened_later[topic] = None
            elif topic is not None and topic.ring is None and self._asks_about(topic):
                self._inquiry.add(topic)
            elif topic is not None:
                self._listener.opened(topic)

    def _asks_about(self, topic: Topic) -> bool:
        # A channel that is heard through a pattern, too, has its ids already, and is not to be held back.
        return self._handover.enabled and not topic.is_pattern and not self._interest.through_pattern(topic.name)

    def _refuse(self, why: str) -> None:
        """The oldest unanswered command was refused as a whole, because of one of its channels."""
        command = self._commands.popleft()
        for key in command.keys:
            topic = self._subscribed.get(key) if self._is_last_answer(key) else None
            if key[1] == self._canary.channel:
                self._canary.forbidden()
            elif key[1] in self._own:
                self._handover.forbidden()
            elif topic is None:
                continue
            elif len(command.keys) > 1:
                self._refused.append(topic)
                self._interest.changed.set()
            else:
                self._metrics.redis_failures["NoPermissionError"] += 1
                logger.warning("Redis at %s refuses the subscription to %r: %s", self._url, topic.name, why)
                self._listener.refused(topic, why)

    def _is_last_answer(self, key: _Key) -> bool:
        self._unanswered[key] -= 1
        if self._unanswered[key] > 0:
            return False
        del self._unanswered[key]
        return True

    async def _reconcile(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._interest.changed.clear()
            expired = self._interest.take_expired()
            for topic in expired:
                self._inquiry.discard(topic)
                self._listener.given_up(topic)
            await self._send(connection, "UNSUBSCRIBE", [t for t in expired if not t.is_pattern])
            await self._send(connection, "PUNSUBSCRIBE", [t for t in expired if t.is_pattern])
            new = self._interest.take_new()
            await self._send(connection, "SUBSCRIBE", [t for t in new if not t.is_pattern])
            await self._send(connection, "PSUBSCRIBE", [t for t in new if t.is_pattern])
            refused, self._refused = self._refused, []
            for topic in refused:
                if self._interest.find(topic.name, topic.is_pattern) is not topic:
                    continue  # given up meanwhile
                await self._send(connection, "PSUBSCRIBE" if topic.is_pattern else "SUBSCRIBE", [topic])
            next_expiry = self._interest.next_expiry()
            try:
                async with asyncio.timeout_at(next_expiry):
                    await self._interest.changed.wait()
            except TimeoutError:
                assert next_expiry is not None
                # A timer may fire a clock tick early; without this the loop would spin until it has passed.
                await asyncio.sleep(max(0.0, next_expiry - loop.time()))

    async def _subscribe_own(self, connection: Connection) -> None:
        channels = [self._canary.channel] if self._canary.enabled else []
        channels += [self._handover.questions, self._handover.answers] if self._handover.enabled else []
        for channel in channels:  # one by one, because they may be forbidden one by one
            key = (False, channel)
            self._unanswered[key] += 1
            self._commands.append(_Command([key]))
            await connection.send_command("SUBSCRIBE", channel, check_health=False)

    async def _warm_up(self) -> None:
        """Want what others listen to, so that clients who move here find their place.

        What goes on without it: a client that comes from another worker would be told of a gap.
        """
        try:
            for name in await self._durable.channels(self._warm_channels):
                topic = self._interest.want(name, False)
                if not topic.size:
                    self._interest.release(topic)
        except (RedisError, OSError, TooManyTopics) as error:
            logger.warning("could not ask Redis what others listen to: %s", error)

    async def _settle(self) -> None:
        """Wait until everything is subscribed to; then fill the hole the lost connection has left, and go on."""
        with contextlib.suppress(RedisError, OSError):
            await self._durable.install()
        # Only what was wanted when the connection began: new channels may keep coming for ever.
        waiting = set(self._interest)
        while True:
            waiting = {topic for topic in waiting if not self._is_settled(topic)}
            if not waiting and not any(self._unanswered[False, channel] for channel in self._own):
                break
            await asyncio.sleep(_SETTLE_STEP)
        if self._was_listening:
            pasts = await self._missed()
            if self._holding:
                self._listener.interrupted(pasts)
        elif self._asked_about_all < _ASK_ABOUT_ALL:
            self._asked_about_all += 1
            self._take_over(await self._handover.ask(None, _PATIENCE, self._question_came_back))
        self._release()
        self._warm = True
        self._problem = None
        await self._inquiry.run()

    def _take_over(self, answers: list[list[TopicRecord]]) -> None:
        if not self._holding:
            return
        topics = [topic for topic in self._interest if topic in self._opened_later]
        known = self._listener.take_over(topics, answers)
        self._listener.caught_up(topics)
        # What was held before the question came back is in the answers.
        count = self._held_before_question
        self._batch = [each for each in self._batch[:count] if each.channel not in known] + self._batch[count:]
        self._last = None

    def _question_came_back(self) -> None:
        self._held_before_question = len(self._batch)

    def _canary_came(self, message: bytes) -> None:
        self._canary.echo(message, complete=not self._holding)

    def _question_came(self, message: bytes) -> None:
        question = self._handover.asked(message)
        if question is None:
            return
        if not self._holding:
            self._inquiry.question_came(question)
        elif self._was_listening:
            # What was missed is still to be filled in; without an answer the other would begin with nothing.
            self._held_questions.append((len(self._batch), question))
        else:  # two that start would wait for each other
            self._handover.answer(question, [])

    def _is_settled(self, topic: Topic) -> bool:
        return (
            topic in self._opened_later
            or topic.refusal is not None
            or self._interest.find(topic.name, topic.is_pattern) is not topic
        )

    async def _missed(self) -> dict[str, Past] | None:
        if not self._canary.enabled:
            return None
        names = [topic.name for topic in self._interest if not topic.is_pattern]
        heard, newest = self._listener.heard, self._listener.newest
        # Some seconds early: after a failover the clock that gives the ids may be behind the one that gave this time.
        since = DurableId(max(0, heard.ms - _CLOCKS_APART_MS), 0)
        pasts: dict[str, Past] = {}
        try:
            async with asyncio.timeout(_RECOVERY_TIMEOUT):
                if await self._durable.check(newest) == DurableId(0, 0):
                    return {}  # nobody publishes durably
                for start in range(0, len(names), _NAMES_PER_COMMAND):
                    pasts |= await self._durable.since(names[start : start + _NAMES_PER_COMMAND], since, newest)
        except (PastUnavailable, TimeoutError):
            return None
        return pasts

    def _give_up_recovery(self) -> None:
        """More has come than may be held back: what was missed is told of instead of fetched."""
        if self._holding:
            if self._was_listening:
                self._listener.interrupted(None)
            self._release()

    def _release(self) -> None:
        self._holding = False
        self._was_listening = True
        opened, self._opened_later = self._opened_later, {}
        for topic in opened:
            self._listener.opened(topic)
        held, self._batch = self._batch, []
        questions, self._held_questions = self._held_questions, []
        begin = 0
        for count, question in questions:
            # An answer holds what came before its question, no less and no more: the rest the other has heard.
            self._deliver(held[begin:count])
            parts = self._listener.export(question.channels, question.after, question.room)
            self._handover.answer(question, parts)
            begin = count
        self._deliver(held[begin:])

    async def _send(self, connection: Connection, command: str, topics: Sequence[Topic]) -> None:
        if command == "PSUBSCRIBE" and topics:
            self._inquiry.open_all()  # or messages would come through the pattern before they come out of there
        for start in range(0, len(topics), _NAMES_PER_COMMAND):
            keys = []
            for topic in topics[start : start + _NAMES_PER_COMMAND]:
                prefix = self._pattern_prefix if topic.is_pattern else self._prefix
                key = (topic.is_pattern, prefix + topic.name.encode())
                if command.endswith("UNSUBSCRIBE"):
                    self._subscribed.pop(key, None)
                else:
                    self._subscribed[key] = topic
                keys.append(key)
            self._unanswered.update(keys)
            self._commands.append(_Command(keys))
            await connection.send_command(command, *[name for _, name in keys], check_health=False)


class _Command:
    """A command sent, with how many of its answers are still to come: one for each name."""

    __slots__ = ("keys", "unanswered")

    def __init__(self, keys: list[_Key]) -> None:
        self.keys = keys
        self.unanswered = len(keys)


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _explain(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return f"it refuses the user or password in redis_url ({error})"
    if isinstance(error, NoPermissionError):
        return f"the user in redis_url lacks a permission ({error})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return str(error) or type(error).__name__
