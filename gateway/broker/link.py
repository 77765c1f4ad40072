"""The worker's link to one Redis: the connection that listens, and what happens on it, in order."""

import asyncio
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Connection, Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from gateway.broker.client import connection_pool, disconnect_idle, new_connection, without_password
from gateway.broker.clock import PATIENCE, TickClock, tick_channel
from gateway.broker.functions import Functions
from gateway.broker.secret import NOTICES
from gateway.broker.server_identity import identity_of
from gateway.broker.signature import Signer
from gateway.broker.topics import WantedTopics
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.entry import Entry
from gateway.memory.event import RESERVED_PREFIX, Event, Undeliverable, event_of, split_durable
from gateway.memory.history import History
from gateway.memory.listening import Key, Listening, OutOfStep, ServerChanged
from gateway.memory.names import BadName, check_clean
from gateway.memory.tick import parse_tick
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.ports import Heard, Receiver
from gateway.settings import Settings
from gateway.throttle import Throttle

logger = logging.getLogger(__name__)

_FIRST_BACKOFF = 0.05
_NAMES_PER_COMMAND = 1000
_NO_PROBLEM_YET = "not connected to Redis yet"
_OPENING = "subscribing again"


class Link:
    """Keeps what Redis sends in step with what the worker wants, forever.

    One task owns the connection. It reconciles: new topics are subscribed to, topics that nobody wants any more are
    unsubscribed from, and after a lost connection everything is asked for again. What arrives together is delivered
    together.

    Args:
        settings: where Redis is.
        topics: what is wanted.
        listening: counts what is heard.
        history: keeps it.
        clock: requests ticks.
        commands: the pool for commands, whose connections are closed with the connection that listens: after a
            failover they would lead to the old master.
        functions: find the secret, before anything is heard.
        signer: knows the gateway's own messages from what anybody may publish.
        receiver: told of what has come.
        durable_channels: on which plain messages are rejected.
        database: number of Redis' database: signatures of another's don't count here.
        metrics: where messages, connects and failures are counted.
        now: seconds, monotonic.
    """

    def __init__(
        self,
        settings: Settings,
        topics: WantedTopics,
        listening: Listening,
        history: History,
        clock: TickClock,
        commands: Redis,
        functions: Functions,
        signer: Signer,
        receiver: Receiver,
        durable_channels: DurableChannels,
        database: int,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._topics = topics
        self._listening = listening
        self._history = history
        self._clock = clock
        self._commands_pool = commands.connection_pool
        self._functions = functions
        self._signer = signer
        self._secret_changed = asyncio.Event()
        functions.on_change = self._secret_changed.set
        self._ponged = asyncio.Event()
        # Ticks up to here were issued before this connection listened; None until that is known.
        self._floor: tuple[int, int] | None = None
        self._receiver = receiver
        self._durable_channels = durable_channels
        self._metrics = metrics
        self._now = now
        # No timeout of redis-py's: its writes then go through asyncio.wait_for, which before Python 3.12 loses a
        # cancellation that comes as the write completes (bpo-37658), and the task group would wait forever.
        self._pool = connection_pool(settings, 1, socket_timeout=None)
        self._connect_timeout = settings.redis_connect_timeout
        self._url = without_password(settings.redis_url)
        self._interval = settings.canary_interval
        self._backoff_max = settings.redis_backoff_max
        self._prefix_bytes = len(settings.channel_prefix.encode())
        self._max_payload_bytes = settings.max_payload_bytes
        self._max_id_bytes = settings.max_id_bytes
        self._hears_ticks = asyncio.Event()
        self._database = b"%d" % database
        self._tick_channel = tick_channel(database)
        self._control: dict[bytes, Callable[[bytes], None]] = {
            NOTICES: self._notice_came,
            self._tick_channel: self._tick_came,
        }
        self._notice: bytes | None = None
        # Requests sent and not yet answered, by name: only the last answer confirms a topic.
        self._unanswered: Counter[Key] = Counter()
        # The same commands in the order they were sent, because an error names neither command nor channel.
        self._requests: deque[_Request] = deque()
        # Of refused commands: asked for again one by one, so that a forbidden one harms no other.
        self._refused: list[Key] = []
        self._batch: list[Heard] = []
        self._over: list[Topic] = []
        self._heard_at = 0.0
        self._reopening: set[Topic] = set()
        self._problem: str | None = _NO_PROBLEM_YET
        self.on_connect: list[Callable[[], None]] = []
        # Done when this connection hears the gateway's own channels, before any stream goes on.
        self.on_hearing: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.on_first_tick: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self._log_rejected = Throttle(1.0, now)

    def control(self, channel: bytes, handle: Callable[[bytes], None]) -> None:
        """Have what comes on a channel of the gateway's own handled, in its place among everything else."""
        self._control[channel] = handle

    @property
    def problem(self) -> str | None:
        """Why no messages can arrive just now; None while they can."""
        return self._problem

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = _FIRST_BACKOFF
        while True:
            connection = new_connection(self._pool)
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    identity = await identity_of(connection)
                    await self._functions.install()
                # No more can come that was signed with the former.
                self._functions.adopt()
                self._begin(identity)
                backoff = _FIRST_BACKOFF
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(connection))
                    await self._subscribe_control(connection)
                    tasks.create_task(self._reconcile(connection))
                    tasks.create_task(self._run_clock(connection))
                    tasks.create_task(self._watch())
                    tasks.create_task(self._watch_secret(connection))
            except* (RedisError, OSError, ServerChanged, OutOfStep) as errors:
                self._failed(_first(errors))
            except* Exception as errors:  # an answer nobody expected: without this the worker would stay deaf
                logger.exception("the connection to Redis failed in an unknown way")
                self._failed(_first(errors))
            finally:
                self._end()
                await connection.disconnect(nowait=True)
                await disconnect_idle(self._commands_pool)
            # Full jitter, so that a fleet of workers doesn't return in step.
            await asyncio.sleep(random.uniform(backoff / 2, backoff))
            backoff = min(backoff * 2, self._backoff_max)

    async def close(self) -> None:
        """Release what is held for connections."""
        await self._pool.disconnect()

    def _begin(self, identity: str) -> None:
        logger.info("connected to Redis at %s", self._url)
        self._metrics.redis_connects += 1
        self._problem = _OPENING
        self._heard_at = self._now()
        self._listening.connect(identity)
        self._unanswered.clear()
        self._requests.clear()
        self._refused.clear()
        self._hears_ticks.clear()
        self._secret_changed.clear()
        self._notice = None
        self._floor = None
        self._clock.deaf = ""
        self._reopening = set(self._topics)
        for hook in self.on_connect:
            hook()

    def _end(self) -> None:
        """The connection is lost, or the worker ends."""
        self.flush()
        self._receiver.lost()
        self._listening.lose()
        self._topics.ask_for_all()
        self._clock.lost()
        for hook in self.on_lost:
            hook()

    def _failed(self, error: Exception) -> None:
        problem = _explain(error)
        self._metrics.redis_failures[type(error).__name__] += 1
        if problem != self._problem:  # once, not at every attempt
            level = logging.ERROR if isinstance(error, ResponseError) else logging.WARNING
            logger.log(level, "Redis at %s: %s; trying again until it works", self._url, problem)
        self._problem = problem

    async def _run_clock(self, connection: Connection) -> None:
        # Ticks are requested over another connection: one could be issued before this one listens.
        await self._hears_ticks.wait()
        for hook in self.on_hearing:
            await hook()
        # Whoever has recorded older ones can publish them again.
        self._floor = await self._clock.newest()
        await self._clock.run(partial(connection.send_command, "PING", check_health=False))

    async def _watch(self) -> None:
        """Notice that nothing comes any more, although ticks are requested.

        Raises:
            ConnectionError: Redis has been silent for too long.
        """
        while self._interval:
            planned = self._now() + self._interval
            await asyncio.sleep(self._interval)
            if self._now() > planned + self._interval:
                # This process stood still, not Redis; what came meanwhile is still to be read.
                self._heard_at = self._now()
            elif (silence := self._now() - self._heard_at) > PATIENCE * self._interval:
                raise ConnectionError(f"silent for {silence:.1f} s, the connection is taken for dead")

    async def _watch_secret(self, connection: Connection) -> None:
        """Notice a new secret that no notice announces: messages signed with it have been taken for forged ones, and
        counted otherwise than elsewhere.

        Raises:
            ServerChanged: there is one.
        """
        while True:
            await self._secret_changed.wait()
            self._secret_changed.clear()
            # It may have been announced: that is read before the answer to this.
            self._ponged.clear()
            await connection.send_command("PING", check_health=False)
            await self._ponged.wait()
            if self._functions.has_changed:
                raise ServerChanged("the secret has changed")

    # -- reading

    async def _read(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        now = self._now
        while True:
            # Returns without yielding while whole replies are there already, so that the batch scheduled for
            # the loop's next turn holds all that arrived together.
            try:
                reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            except NoPermissionError as error:
                self._refuse(str(error))
                continue
            self._heard_at = now()
            kind = reply[0]
            if kind == b"message":
                name = reply[1]
                if (handle := self._control.get(name)) is not None:
                    self.flush()
                    handle(reply[2])
                    if self._notice is not None:
                        await self._follow(self._notice)
                    continue
                heard = self._message((False, name), name, reply[2])
            elif kind == b"pong" or reply == b"PONG":  # the latter while nothing is subscribed to
                self._clock.heard()
                self._ponged.set()
                continue
            elif kind == b"pmessage":
                heard = self._message((True, reply[1]), reply[2], reply[3])
            else:
                self.flush()
                self._answered(kind, reply[1])
                continue
            if heard is not None:
                self._batch.append(heard)
                if len(self._batch) == 1:
                    loop.call_soon(self._deliver)

    def _message(self, key: Key, name: bytes, payload: bytes) -> Heard | None:
        """Count a message, and keep it; None if there is nothing to deliver."""
        if name.startswith(_RESERVED, self._prefix_bytes):
            return None  # the gateway's own, through a pattern; no worker counts them
        topics = self._listening.heard(key, name, payload)
        if not topics:
            return None
        number = 0
        channel = ""
        event: Event | None = None
        self._metrics.messages += 1
        try:
            durable, body = split_durable(payload)
            if durable is not None:
                # Redis signs for no database in particular as long as there was no tick in it.
                if not self._signer.has_signed(durable.text + b" " + name, durable.signature, self._database, b""):
                    self._reject_signature(name)
                    durable = None
                elif self._listening.is_new(durable.generation, durable.number):
                    number = durable.number
                else:
                    durable = None  # another database's, which shares Pub/Sub; or it was published again
            channel = name[self._prefix_bytes :].decode()
            check_clean(channel)
            if durable is None and self._durable_channels.has(channel):
                raise Undeliverable(
                    "not_durable", "only durable messages are delivered here (setting durable_channels)"
                )
            event = event_of(channel, body, durable is not None, self._max_payload_bytes, self._max_id_bytes)
        except Undeliverable as error:
            self._reject(name, error)
        except (BadName, UnicodeDecodeError):
            self._metrics.refused_messages["bad_channel"] += 1
        except ServerChanged:
            raise
        except Exception:  # a fault of ours: it must not cost the messages that came with this one
            logger.exception("message on %r could not be read", name)
            self._metrics.refused_messages["fault"] += 1
        if number:
            self._note_end(topics, event is not None and event.is_end)
        if len(topics) == 1:
            topic = topics[0]
            position = self._listening.count(topic, number)
            if event is None:
                return None
            if position is not None:
                self._history.append(topic.ring, Entry(position, channel, event))
            return Heard(channel, event, topics, (position,))
        positions = tuple([self._listening.count(topic, number) for topic in topics])
        if event is None:
            return None
        for topic, position in zip(topics, positions, strict=True):
            if position is not None:
                self._history.append(topic.ring, Entry(position, channel, event))
        return Heard(channel, event, topics, positions)

    def _note_end(self, topics: Sequence[Topic], is_end: bool) -> None:
        """A durable message has come: it is its channel's end, or says that the channel isn't over."""
        for topic in topics:
            if not topic.is_pattern:
                topic.over = is_end
                if is_end:
                    self._over.append(topic)

    def _reject(self, name: bytes, error: Undeliverable) -> None:
        self._metrics.refused_messages[error.reason] += 1
        if (more := self._more(error.reason)) is not None:
            logger.warning("message on %r rejected, %s: %s%s", name, error.reason, error, more)

    def _more(self, kind: str) -> str | None:
        """How a log line of that kind ends; None if it is held back, because there was one just now."""
        suppressed = self._log_rejected.allow(kind)
        if suppressed is None:
            return None
        return f" ({suppressed} more since the last such line)" if suppressed else ""

    def flush(self) -> None:
        """Have everything delivered that has been counted, before positions or members change."""
        self._deliver()
        self._receiver.commit()

    def _deliver(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            try:
                self._receiver.deliver(batch)
            except Exception:  # a fault of ours must not cost the connection
                logger.exception("delivering %d messages failed", len(batch))
        if self._over:
            over, self._over = self._over, []
            self._receiver.over(over)

    def _reject_signature(self, name: bytes) -> None:
        """What was marked as durable is a plain message like any other: anybody may write the mark."""
        self._metrics.unsigned_messages += 1
        if (more := self._more("unsigned")) is not None:
            logger.warning(
                "message on %r is marked as durable and not signed by the gateway's functions; delivered as a plain "
                "one%s",
                name,
                more,
            )

    def _notice_came(self, payload: bytes) -> None:
        self._notice = payload

    async def _follow(self, notice: bytes) -> None:
        """Read on with the new secret; until it is known, nothing is read."""
        self._notice = None
        if not await self._functions.follow(notice):
            self._metrics.refused_messages["unsigned"] += 1
        self._heard_at = self._now()

    def _tick_came(self, payload: bytes) -> None:
        payload, _, signature = payload.rpartition(b" ")
        if not self._signer.has_signed(payload, signature, self._tick_channel):
            self._metrics.refused_messages["unsigned"] += 1
            return
        try:
            tick = parse_tick(payload)
        except ValueError:
            self._metrics.refused_messages["bad_control"] += 1
            return
        if tick is None:
            return
        first = self._listening.era is None
        if first and (self._floor is None or (tick.generation, tick.number) <= self._floor):
            return
        if self._listening.has_heard(tick) or self._listening.is_foreign(tick):
            self._metrics.refused_messages["bad_control"] += 1  # it was published again
            return
        opened = self._listening.tick(tick)
        for hook in self.on_first_tick if first else ():
            hook()
        self._metrics.ticks += 1
        self._receiver.ticked()
        self._open(opened)
        self._clock.heard()

    def open_uncounted(self, topics: Sequence[Topic]) -> None:
        """Redis refuses to count: what it has confirmed is heard, without positions."""
        self._open(topics)

    def _open(self, topics: Sequence[Topic]) -> None:
        if topics:
            self._receiver.opened(topics)
        self._reopening.difference_update(topics)
        self._check_ready()

    def _check_ready(self) -> None:
        if self._problem is None or (self._listening.era is None and not self._clock.refusal):
            return
        self._reopening = {topic for topic in self._reopening if self._is_still_wanted(topic)}
        if not self._reopening:
            self._problem = None

    def _is_still_wanted(self, topic: Topic) -> bool:
        return topic.state not in (State.REFUSED, State.OPEN, State.UNCOUNTED) and (
            self._topics.find(topic.name, topic.is_pattern) is topic
        )

    # -- subscribing

    def _answered(self, kind: bytes, name: bytes) -> None:
        request = self._requests[0]
        request.unanswered -= 1
        if not request.unanswered:
            self._requests.popleft()
        key = (kind.startswith(b"p"), name)
        last = self._is_last_answer(key)
        if name in self._control and not key[0]:
            if name == self._tick_channel:
                self._hears_ticks.set()
            return
        if kind.endswith(b"unsubscribe"):
            self._listening.unsubscribed(key)
            return
        self._listening.subscribed(key, last)
        if self._listening.waiting:
            self._clock.need()

    def _refuse(self, why: str) -> None:
        """The oldest unanswered command was refused as a whole, because of one of its channels."""
        request = self._requests.popleft()
        for key in request.keys:
            last = self._is_last_answer(key)
            if key[1] in self._control and not key[0]:
                logger.warning(
                    "Redis does not allow this user to subscribe to %s (ACL): %s",
                    key[1].decode(),
                    _control_use(key[1]),
                )
                if key[1] == self._tick_channel:
                    self._clock.deaf = why
                    self._hears_ticks.set()
            elif last and len(request.keys) > 1:
                self._refused.append(key)
                self._topics.changed.set()
            elif last and (topic := self._listening.topics.get(key)) is not None:
                self._metrics.redis_failures["NoPermissionError"] += 1
                if (more := self._more("denied")) is not None:
                    logger.warning(
                        "Redis at %s does not let this user subscribe to %r (ACL): %s%s",
                        self._url,
                        topic.name,
                        why,
                        more,
                    )
                topic.state = State.REFUSED
                topic.refusal = why
                self._receiver.refused(topic)
                self._check_ready()

    def _is_last_answer(self, key: Key) -> bool:
        self._unanswered[key] -= 1
        if self._unanswered[key] > 0:
            return False
        del self._unanswered[key]
        return True

    async def _reconcile(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._topics.changed.clear()
            expired = self._topics.take_expired()
            await self._request(connection, "UNSUBSCRIBE", [key for key in expired if not key[0]])
            await self._request(connection, "PUNSUBSCRIBE", [key for key in expired if key[0]])
            new = [self._topics.key(topic) for topic in self._topics.take_new()]
            await self._request(connection, "SUBSCRIBE", [key for key in new if not key[0]])
            await self._request(connection, "PSUBSCRIBE", [key for key in new if key[0]])
            refused, self._refused = self._refused, []
            for key in refused:
                if key in self._listening.topics:
                    await self._request(connection, "PSUBSCRIBE" if key[0] else "SUBSCRIBE", [key])
            self._check_ready()
            next_expiry = self._topics.next_expiry()
            try:
                async with asyncio.timeout_at(next_expiry):
                    await self._topics.changed.wait()
            except TimeoutError:
                assert next_expiry is not None
                # A timer may fire a clock tick early; without this the loop would spin until it has passed.
                await asyncio.sleep(max(0.0, next_expiry - loop.time()))

    async def _subscribe_control(self, connection: Connection) -> None:
        # One by one, because they may be forbidden one by one. Ticks last: whoever hears them hears the others.
        for channel in sorted(self._control, key=lambda name: name == self._tick_channel):
            await self._request(connection, "SUBSCRIBE", [(False, channel)])

    async def _request(self, connection: Connection, command: str, keys: Sequence[Key]) -> None:
        for start in range(0, len(keys), _NAMES_PER_COMMAND):
            some = keys[start : start + _NAMES_PER_COMMAND]
            self._unanswered.update(some)
            self._requests.append(_Request(some))
            await connection.send_command(command, *[name for _, name in some], check_health=False)


class _Request:
    """A command sent, with how many of its answers are still to come: one for each name."""

    __slots__ = ("keys", "unanswered")

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = keys
        self.unanswered = len(keys)


_RESERVED = RESERVED_PREFIX.encode()


def _control_use(channel: bytes) -> str:
    if channel == NOTICES:
        return "when the secret changes, this worker has to reconnect, and its clients may get a gap"
    if b"gateway.tick." in channel:
        return "without ticks, streams have no positions, and clients that come back get a gap"
    if b"gateway.revoked." in channel:
        return "a grant that is revoked ends when this worker connects to Redis again, not before"
    return "other workers can't be asked what this one doesn't know, and clients that move get a gap"


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _explain(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return f"it rejects the user or password in redis_url ({error})"
    if isinstance(error, NoPermissionError):
        return f"the user in redis_url lacks a permission ({error})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return str(error) or type(error).__name__
