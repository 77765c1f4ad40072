"""A simulated worker: the gateway's own memory, topics, members and delivery, and around them what needs a loop."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from gateway.broker.peers import Peers
from gateway.broker.signature import Signer
from gateway.broker.topics import WantedTopics
from gateway.broker.wire import Question
from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.in_band import closing, opened
from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.memory.catch_up import CatchUp, Find, Need, Older, Verify, Wish
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.entry import Entry
from gateway.memory.event import Undeliverable, parse, split_durable
from gateway.memory.history import History
from gateway.memory.listening import Key, Listening, OutOfStep, ServerChanged
from gateway.memory.merge import Known, unknown_parts
from gateway.memory.place import NO_SUFFIX, NOWHERE, Suffix
from gateway.memory.position import ZERO, Position
from gateway.memory.replay import Limits, Replayed
from gateway.memory.tick import parse_tick
from gateway.memory.topic import State, Topic, pin, unpin
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings
from tests.unit.model.client import Client
from tests.unit.model.names import DECLARED, PATTERNS
from tests.unit.model.past import Past
from tests.unit.model.processes import Process, Processes, Wait, at_some_time
from tests.unit.model.server import TICKS, Connection, Demoted, Item, Refused, Server

if TYPE_CHECKING:
    from tests.unit.model.world import World

ENCODING = Encodings(256).get(chunked=False, named=False)
_NOBODY: Any = None


class Worker:
    """One worker.

    Attributes:
        heard_number: of the newest message that was read.
        gone: it has exited, or was killed.
        leaving: it is shutting down.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self.world = world
        self.settings = settings
        self.gone = False
        self.leaving = False
        self.handed_over = False
        self.heard_number = -1
        self.deafness = 0
        self.processes = Processes()
        self.history = History(settings, world.clock)
        self.listening = Listening(self.history)
        self.topics = WantedTopics(self.listening, self.history, b"", 1000, settings.linger, world.clock, 1000)
        self.metrics = Metrics()
        self.members = Members(settings, 1000, self.topics, self.metrics, world.clock)
        self.delivery = Delivery(settings, self.members, self.listening, self.metrics, world.clock, self._need_tick)
        self.durable_channels = DurableChannels(tuple(DECLARED))
        self.past = Past(self, self.durable_channels.all_of)
        self.peers = Peers(_NOBODY, Signer(), self.listening, self.topics, b"", 0, self.metrics)
        self._limits = Limits(settings.replay_events, settings.replay_bytes)
        self._unanswered: Counter[Key] = Counter()
        self._batch: list[Heard] = []
        self._verifying: deque[Verifying] = deque()
        self._wants_tick = False
        self.connect()

    # -- the connection

    def connect(self) -> None:
        server = self.world.reach()
        self.connection = Connection(server)
        self.listening.connect(server.identity)
        self._unanswered.clear()
        self.connection.subscribe((False, TICKS))
        self.topics.ask_for_all()
        self.processes.start(self._tick_clock())

    def cut(self) -> None:
        """The connection is lost; every stream goes on as if its client had come back."""
        self.flush()
        interrupted = []
        for subscriber in self.members.all():
            if subscriber.left_at is None and self._has_joined(subscriber):
                left_at = self.listening.id_of(subscriber.topics, subscriber.suffix)
                self.members.part(subscriber, left_at)
                interrupted.append(subscriber)
            elif subscriber.left_at is not None:
                interrupted.append(subscriber)
        self.listening.lose()
        self.connection.close()
        self.connect()
        for subscriber in interrupted:
            self.processes.start(self._go_on(subscriber))

    def reconcile(self) -> None:
        """Ask Redis for what is wanted, and give up what isn't."""
        for topic in self.topics.take_new():
            key = self.topics.key(topic)
            self._unanswered[key] += 1
            self.connection.subscribe(key)
        for key in self.topics.take_expired():
            self._unanswered[key] += 1
            self.connection.unsubscribe(key)

    def read(self, most: int) -> None:
        """Read what has come, all of it in one go, and deliver it."""
        if not self.connection.inbox:
            if not self.world.is_reachable(self.connection.server):
                self.cut()  # closed, or silent for three seconds
            return
        connection = self.connection
        try:
            while connection.inbox and most and connection is self.connection:
                most -= 1
                self._take(connection.inbox.popleft())
        except ServerChanged:
            self.cut()
        except OutOfStep:
            assert False, "out of step"  # noqa: B011, PT015
        self.flush()

    def flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self.delivery.deliver(batch)
        self.delivery.commit()

    def bring(self, connection: Connection, call: Any) -> None:
        """Let another worker's answer come on a connection, if it is still the present one."""
        if connection is self.connection:
            connection.inbox.append(Item("call", call=call))

    def _take(self, item: Item) -> None:
        if item.call is not None:
            self.flush()
            item.call()
        elif item.channel == TICKS:
            self.flush()
            tick = parse_tick(item.payload)
            assert tick is not None
            self.listening.tick(tick)
            self.delivery.ticked()
        elif item.kind in ("message", "pmessage"):
            if (heard := self._message(item)) is not None:
                self._batch.append(heard)
        else:
            self.flush()
            if item.key[1] == TICKS:
                return
            self._unanswered[item.key] -= 1
            if item.kind == "unsubscribe":
                self.listening.unsubscribed(item.key)
            else:
                self.heard_number = max(self.heard_number, item.newest)
                self.listening.subscribed(item.key, not self._unanswered[item.key])

    def _message(self, item: Item) -> Heard | None:
        topics = self.listening.heard(item.key, item.channel, item.payload)
        if topics is None:
            return None
        number, event, channel = 0, None, item.channel.decode()
        durable, body = split_durable(item.payload)
        if durable is not None:
            assert self.listening.is_new(durable.generation, durable.number)
            number = durable.number
        try:
            event = parse(body, durable is not None, 1_000_000, 256)
        except Undeliverable:
            pass
        else:
            self.heard_number = max(self.heard_number, int(event.data))
        if durable is None and channel in DECLARED:
            event = None
        positions = tuple([self.listening.count(topic, number) for topic in topics])
        if event is None or not topics:
            return None
        for topic, position in zip(topics, positions, strict=True):
            if position is not None:
                self.history.append(topic.ring, Entry(position, channel, event))
        return Heard(channel, event, topics, positions)

    # -- ticks

    def _need_tick(self) -> None:
        self._wants_tick = True

    def silent(self) -> None:
        """No tick has come for a while."""
        self._wants_tick = True

    def _tick_clock(self) -> Process:
        """As `TickClock.run`."""
        connection, listening = self.connection, self.listening
        self._wants_tick = True

        def lost() -> bool:
            return connection is not self.connection

        while True:
            yield Wait(lambda: lost() or self._wants_tick or listening.waiting or bool(self._verifying))
            if lost():
                return
            self._wants_tick = False
            verifying = [self._verifying.popleft() for _ in range(len(self._verifying))]
            asked: tuple[int, int] | None = None
            while True:
                era = listening.era
                force = era is None or bool(verifying)
                yield Wait(at_some_time)
                if lost() or not connection.server.alive:
                    self._verifying.extend(verifying)
                    yield Wait(lost)
                    return
                try:
                    reply = connection.server.tick(asked or (None if force else era))
                except Demoted:
                    self._verifying.extend(verifying)
                    self.cut()
                    return
                except Refused:
                    for each in verifying:
                        each.done = True
                    yield from self._without_ticks(lost)
                    break
                if reply.wait:
                    asked = reply.generation, reply.number
                    again = self.world.time + reply.wait
                    yield Wait(lambda at=again: lost() or self.world.time >= at)  # type: ignore[misc]
                    continue
                if not lost() and listening.era is not None and reply.generation != listening.era[0]:
                    self._verifying.extend(verifying)
                    self.cut()
                    return
                yield Wait(
                    lambda n=reply.number: lost() or (listening.era is not None and listening.era[1] >= n)  # type: ignore[misc]
                )
                if lost():
                    self._verifying.extend(verifying)
                    return
                for each in verifying:
                    each.done = True
                break

    def _without_ticks(self, lost: Any) -> Process:
        """Redis delivers, but doesn't count: a message to this worker itself shows that it does."""
        heard: list[bool] = []
        connection = self.connection
        connection.inbox.append(Item("call", call=lambda: heard.append(True)))
        yield Wait(lambda: lost() or bool(heard))
        if not lost():
            self.listening.open_uncounted()
            again = self.world.time + 30
            yield Wait(lambda: lost() or self.world.time >= again)

    # -- streams

    def come(self, client: Client, history: int) -> Subscriber:
        """A client has connected."""
        names = sorted(client.topics, key=lambda name: name in PATTERNS)
        topics = [self.topics.want(name, name in PATTERNS) for name in names]
        suffix = Suffix(proof=client.proof) if client.proof else NO_SUFFIX
        subscriber = self.members.register(topics, ENCODING, suffix)
        wish = Wish(client.last_id, history, client.new, client.proof)
        self.processes.start(self._begin(subscriber, client, wish))
        return subscriber

    def close(self, client: Client) -> None:
        """End a stream cleanly."""
        subscriber = client.subscriber
        assert subscriber is not None
        left_at = subscriber.left_at
        if left_at is None:
            if subscriber.send != client.feed:
                return  # it hasn't begun
            self.flush()
            left_at = self.listening.id_of(subscriber.topics, subscriber.suffix)
        client.feed(subscriber.take() + ENCODING.encode([Replayed("", closing("worker_shutdown", 1.0), left_at)]))
        self.members.leave(subscriber, "drained")

    def _begin(self, subscriber: Subscriber, client: Client, wish: Wish) -> Process:
        """As `Admission.begin`."""
        state = CatchUp(subscriber.topics, wish)
        pin(state.topics)
        while True:
            yield Wait(lambda: subscriber.closed is not None or all(topic.heard for topic in subscriber.topics))
            if subscriber.closed is not None:
                break
            self.flush()
            replayed = state.attempt(self.listening, self._limits)
            if isinstance(replayed, list):
                piece = self._join(subscriber, replayed)
                yield Wait(at_some_time)
                if subscriber.closed is None:
                    client.feed(piece + subscriber.take())
                    subscriber.send = client.feed
                break
            yield from self._satisfy(state, replayed)
        unpin(state.topics)

    def _go_on(self, subscriber: Subscriber) -> Process:
        """As `Admission._let_return`, for one stream."""
        assert subscriber.left_at is not None
        state = CatchUp(subscriber.topics, Wish(subscriber.left_at, proof=subscriber.suffix.proof))
        epoch = self.listening.epoch
        pin(state.topics)
        while True:
            yield Wait(
                lambda: (
                    subscriber.closed is not None
                    or epoch != self.listening.epoch
                    or all(topic.heard for topic in subscriber.topics)
                )
            )
            if subscriber.closed is not None or epoch != self.listening.epoch:
                break  # if the connection was lost again, another has begun
            self.flush()
            replayed = state.attempt(self.listening, self._limits)
            if isinstance(replayed, list):
                self.delivery.send([subscriber], self._join(subscriber, replayed), len(replayed))
                break
            yield from self._satisfy(state, replayed)
        unpin(state.topics)

    def _join(self, subscriber: Subscriber, replayed: list[Replayed]) -> bytes:
        self.members.join(subscriber)
        topics = subscriber.topics
        id_ = self.listening.id_of(topics, subscriber.suffix)
        if id_.startswith(NOWHERE):
            client = next(client for client in self.world.clients if client.subscriber is subscriber)
            client.uncounted.append({topic.name: self._truth(topic) for topic in topics})
        return ENCODING.encode([*replayed, Replayed("", opened(topics, 1.0), id_)])

    def _truth(self, topic: Topic) -> Position:
        """Where it is on a topic, of which its ids say nothing while Redis refuses to count."""
        read = self.world.counters.log[: self.heard_number + 1]
        return max((logged.positions[topic.name] for logged in read if topic.name in logged.positions), default=ZERO)

    def _satisfy(self, state: CatchUp, need: Need) -> Process:
        state.tries += 1
        listening = self.listening
        epoch = listening.epoch
        if isinstance(need, Verify):
            verifying = Verifying()
            self._verifying.append(verifying)
            yield Wait(lambda: verifying.done)
            state.verified = True
        elif isinstance(need, Find):
            asked = [(topic, hole, self.past.find(topic, hole)) for topic, hole in need.holes]
            yield Wait(lambda: all(each.done for _, _, each in asked))
            for topic, hole, each in asked:
                if each.kept is not None:
                    state.found.setdefault(topic, []).append(Known(hole.position, hole.end, each.kept))
        else:
            yield from self._older(state, need)
        if epoch != listening.epoch:
            state.forget()

    def _older(self, state: CatchUp, need: Older) -> Generator[Wait, bool, None]:
        for topic in state.topics:
            era = self.listening.era
            end = topic.position(era) if era is not None else ZERO
            try:
                entries, _ = yield from self.past.entries(topic, ZERO, end)
            except Refused:
                entries = []
            state.older[topic] = (entries[-need.count :], end)

    def _has_joined(self, subscriber: Subscriber) -> bool:
        audience = self.members.audience(subscriber.topics[0])
        return audience is not None and audience.has(subscriber)

    # -- leaving

    def hand_over(self, heir: Worker) -> None:
        """Have another worker take over what this one knows."""
        self.leaving = True
        self.processes.start(self._hand_over(heir))

    def _hand_over(self, heir: Worker) -> Process:
        """As `Peers.leave`."""
        questions = [self.peers._whole(topic) for topic in self.topics if topic.state is State.OPEN]
        known = yield from self.past.known_to_those_who_stay(questions)
        alone = [
            question
            for question, ranges in zip(questions, known, strict=True)
            if unknown_parts(question.start, question.end, ranges)
        ]
        heir.processes.start(heir._inherit(self, alone))

    def _inherit(self, leaver: Worker, questions: list[Question]) -> Process:
        """As `Peers._inherit`."""
        taken: list[tuple[Topic, Question]] = []
        for question in questions:
            topic = self.topics.find(question.name, question.is_pattern)
            wanted = topic is not None and not self.topics.is_idle(topic)
            topic = self.topics.want(question.name, question.is_pattern)
            if not wanted:
                self.topics.release(topic)
                self.topics.keep(topic, 60_000.0)
            taken.append((topic, question))
        yield Wait(lambda: not any(topic.state in (State.WANTED, State.CONFIRMED) for topic, _ in taken))
        for topic, question in taken:
            since = topic.ring.since
            if since is None or since <= question.start:
                continue
            wanted_part = Question(topic.name, topic.is_pattern, question.start, since)
            for known in (yield from self.past.ask(wanted_part)):
                if known.end == wanted_part.end:
                    topic.ring.learn(known.start, known.end, list(known.kept))
                    break
        leaver.handed_over = True

    def position(self, name: str) -> Position:
        """Where it is on a topic."""
        topic = self.topics.find(name, name in PATTERNS)
        assert topic is not None
        assert self.listening.era is not None
        return topic.position(self.listening.era)

    def server(self) -> Server:
        return self.connection.server


class Verifying:
    """Somebody who waits for a tick that is requested from now on."""

    def __init__(self) -> None:
        self.done = False
