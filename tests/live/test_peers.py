"""Workers ask each other, over a real Redis."""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.broker.peers import Peers
from gateway.broker.signature import Signer
from gateway.broker.topics import WantedTopics
from gateway.broker.wire import Question, dump, dump_questions, load
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.position import Position
from gateway.memory.tick import Tick
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings
from testing.servers import RedisServer
from testing.waiting import DEADLINE, until

pytestmark = pytest.mark.anyio

GENERATION = 10**14


class Crowded(Redis):
    """A client between whose commands another connection begins to listen to a channel."""

    def __init__(self, channel: str, port: int) -> None:
        super().__init__(port=port, protocol=2)
        self._channel = channel
        self._other = Redis(port=port).pubsub()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if args[0] == "PUBLISH" and args[1] == self._channel.encode():
            await self._other.subscribe(self._channel)
        return answer

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self._other.aclose()  # type: ignore[no-untyped-call]
        await super().aclose(close_connection_pool)


class Peer:
    """A worker's share in it: what it knows, without the link that it would have learned it from."""

    def __init__(self, commands: Redis) -> None:
        history = History(Settings(), lambda: 0.0)
        self.history = history
        self.listening = Listening(history)
        self.topics = WantedTopics(self.listening, history, b"", 100, 60.0, lambda: 0.0, 100)
        signer = Signer()
        signer.adopt(b"a secret of all workers")
        self.peers = Peers(commands, signer, self.listening, self.topics, b"", 0, Metrics())
        self.listening.connect("server")
        self.tick(10)

    def tick(self, number: int) -> None:
        self.listening.tick(Tick(GENERATION, number, "server", {}))

    def open(self, name: str, tick: int) -> Topic:
        topic = self.topics.want(name, False)
        self.listening.subscribed(self.topics.key(topic), True)
        self.tick(tick)
        return topic

    def hear(self, topic: Topic, data: bytes) -> Position:
        position = self.listening.count(topic, 0)
        assert position is not None
        self.history.append(topic.ring, Entry(position, topic.name, Event(data)))
        return position


@asynccontextmanager
async def running(commands: Redis, gate: asyncio.Event | None = None) -> AsyncIterator[Peer]:
    """A peer that hears what the others send, once the gate is open."""
    peer = Peer(commands)
    async with commands, commands.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(peer.peers.everyone, peer.peers.own)

        async def read() -> None:
            async for message in subscription.listen():
                if gate is not None:
                    await gate.wait()
                peer.peers.received(message["channel"], message["data"])

        reading = asyncio.create_task(read())
        try:
            peer.peers.greet()
            yield peer
        finally:
            await peer.peers.answered()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


def client(server: RedisServer) -> Redis:
    return Redis(port=server.port, protocol=2)


def question(topic: Topic, start: Position, end: Position) -> Question:
    return Question(topic.name, topic.is_pattern, start, end)


async def test_one_worker_tells_another_what_it_has_heard(private_redis: RedisServer) -> None:
    async with running(client(private_redis)) as asking, running(client(private_redis)) as knowing:
        theirs = knowing.open("news", 20)
        first, second = [knowing.hear(theirs, data) for data in (b"one", b"two")]
        ours = asking.open("news", 30)
        asked = question(ours, Position(GENERATION, 20), second)
        (known,) = (await asking.peers.ask([asked]))[asked]
        assert (known.start, known.end) == (Position(GENERATION, 20), second)
        assert [(each.position, each.event.data) for each in known.kept if isinstance(each, Entry)] == [
            (first, b"one"),
            (second, b"two"),
        ]
        unknown = question(ours, Position(GENERATION, 1), Position(GENERATION, 20))
        assert await asking.peers.ask([unknown]) == {unknown: []}


async def test_a_worker_that_begins_to_listen_is_not_waited_for(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has asked it, so it never answers: after a restart of Redis, streams stood still for five seconds."""
    async with running(Crowded("gateway.peers.0", private_redis.port)) as asking:
        with caplog.at_level(logging.WARNING):
            asked = Question("news", False, Position(GENERATION, 1), Position(GENERATION, 10))
            assert await asking.peers.ask([asked]) == {asked: []}
        assert not caplog.messages


async def test_a_slow_worker_may_be_the_one_that_has_heard_everything(private_redis: RedisServer) -> None:
    """After 0.3 s the asker took it that nobody had, and a busy machine cost its clients a gap."""
    async with AsyncExitStack() as stack:
        gate = asyncio.Event()
        gate.set()
        slow = await stack.enter_async_context(running(client(private_redis), gate))
        other = await stack.enter_async_context(running(client(private_redis)))
        asking = await stack.enter_async_context(running(client(private_redis)))
        slow.tick(20)
        await until(lambda: len(asking.peers._known) == 2, "they know each other")
        other.listening.lose()
        gate.clear()
        asked = asyncio.create_task(asking.peers.heard_all(Position(GENERATION, 10), Position(GENERATION, 20)))
        await until(lambda: any(each.complete for each in asking.peers._pending.values()), "one has answered")
        assert not asked.done()
        gate.set()
        assert await asked


async def test_nobody_is_waited_for_if_nobody_has_heard_everything(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(client(private_redis)) as asking, running(client(private_redis)) as other:
        await until(lambda: len(asking.peers._known) == 1, "they know each other")
        other.listening.lose()
        with caplog.at_level(logging.WARNING):
            assert not await asking.peers.heard_all(Position(GENERATION, 10), Position(GENERATION, 20))
        assert not caplog.messages


async def test_a_worker_that_comes_back_during_a_question_is_asked_the_next_one(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage the first one back asked the others before they were; when no answer had come, it took them for
    gone although they had greeted it, asked them no more, and its clients lost what only they had heard."""
    monkeypatch.setattr("gateway.broker.peers._PATIENCE", 0.5)
    async with running(client(private_redis)) as asking, running(client(private_redis)) as knowing:
        await until(lambda: len(asking.peers._known) == 1, "it is known")
        asking.peers._acquainted = -math.inf
        theirs = knowing.open("news", 20)
        end = knowing.hear(theirs, b"one")
        asked = question(theirs, Position(GENERATION, 20), end)
        with monkeypatch.context() as without_connection:
            without_connection.setattr(knowing.peers, "received", lambda *_: None)
            first = asyncio.create_task(asking.peers.ask([asked]))
            await until(lambda: bool(asking.peers._pending), "it is asked")
            knowing.peers.greet()
            assert await first == {asked: []}
        (known,) = (await asking.peers.ask([asked]))[asked]
        assert [each.event.data for each in known.kept if isinstance(each, Entry)] == [b"one"]


async def test_garbage_between_workers_costs_nothing(private_redis: RedisServer) -> None:
    async with running(client(private_redis)) as asking, running(client(private_redis)) as knowing:
        garbage = [b"", b"{", b"null", b'["ask", "someone", 1, 7]', b"\xff" * 100]
        signed = [knowing.peers._signed(knowing.peers.everyone, payload) for payload in garbage]
        async with client(private_redis) as publisher:
            for payload in garbage + signed:
                await publisher.publish(knowing.peers.everyone.decode(), payload)
        refused = knowing.peers._metrics.refused_messages
        await until(
            lambda: refused["unsigned"] == refused["bad_control"] == len(garbage), "each is counted by its reason"
        )
        asked = Question("news", False, Position(GENERATION, 1), Position(GENERATION, 10))
        assert await asking.peers.ask([asked]) == {asked: []}


@pytest.mark.parametrize("body", [7, [7], ["x"], [[*range(8), [7]]], [[*range(8), [{}]]], [[*range(8), 7]]], ids=str)
async def test_an_answer_of_another_form_says_nothing(private_redis: RedisServer, body: object) -> None:
    """It was an error to everybody who waited for it."""
    async with running(client(private_redis)) as asking, client(private_redis) as broken:
        signer = asking.peers._signer
        async with broken.pubsub(ignore_subscribe_messages=True) as heard:
            await heard.subscribe(asking.peers.everyone)

            async def answer() -> None:
                async for message in heard.listen():
                    asked = load(message["data"].partition(b" ")[2])
                    if asked.kind == "ask":
                        text = dump("known", "broken", asked.number, body)
                        await broken.publish(asking.peers.own, b"%b %b" % (signer.sign(asking.peers.own, text), text))

            answering = asyncio.create_task(answer())
            asked = Question("news", False, Position(GENERATION, 1), Position(GENERATION, 10))
            try:
                assert await asking.peers.ask([asked]) == {asked: []}
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)


async def test_nobody_has_a_worker_give_up_its_own_channels(private_redis: RedisServer) -> None:
    """What is taken over is unsubscribed from after a while, and a worker has no other ears."""
    async with running(client(private_redis)) as heir:
        names = [heir.peers.everyone.decode(), heir.peers.own.decode(), "gateway.tick.0"]
        asked = [Question(name, False, Position(GENERATION, 1), Position(GENERATION, 10)) for name in names]
        message = dump("inherit", "broken", 1, dump_questions(asked))
        heir.peers.received(heir.peers.own, heir.peers._signed(heir.peers.own, message))
        assert heir.peers._tasks
        await until(lambda: not heir.peers._tasks, "it is answered")
        assert not len(heir.topics)


async def test_a_question_is_answered_once(private_redis: RedisServer) -> None:
    """Whoever may listen can publish it again: a thousand such questions took gigabytes, and silenced the worker."""
    async with AsyncExitStack() as stack:
        knowing = await stack.enter_async_context(running(client(private_redis)))
        attacker = await stack.enter_async_context(client(private_redis))
        topic = knowing.open("news", 20)
        end = knowing.hear(topic, b"x" * 100_000)
        asked = dump_questions([question(topic, Position(GENERATION, 20), end)])
        answers = await stack.enter_async_context(attacker.pubsub(ignore_subscribe_messages=True))
        await answers.subscribe("gateway.worker.0.someone")
        refused = knowing.peers._metrics.refused_messages
        for number, kind in enumerate(("ask", "tell")):
            message = dump(kind, "someone", number, asked)
            for payload, reason in (
                (message, "unsigned"),
                (knowing.peers._signed(knowing.peers.own, message), "repeated_question"),
            ):
                before = refused[reason]
                async with attacker.pipeline(transaction=False) as pipeline:
                    for _ in range(1000):
                        pipeline.publish(knowing.peers.own, payload)
                    await pipeline.execute()
                await until(lambda: refused[reason] >= before + 999, "all have come")  # noqa: B023
        kinds: list[bytes] = []
        async with asyncio.timeout(DEADLINE):
            while kinds[-1:] != [b"told"]:
                if (got := await answers.get_message(timeout=DEADLINE)) is not None:
                    kinds.append(b"told" if b'"told"' in got["data"] else b"known")
        assert kinds == [b"known", b"told"]
        assert await answers.get_message(timeout=0.1) is None


async def test_questions_that_nobody_waits_for_are_bounded(private_redis: RedisServer) -> None:
    async with running(client(private_redis)) as knowing, client(private_redis) as attacker:
        refused = knowing.peers._metrics.refused_messages
        async with attacker.pipeline(transaction=False) as pipeline:
            for number in range(3000):
                message = dump("tell", "someone", number, dump_questions([]))
                pipeline.publish(knowing.peers.own, knowing.peers._signed(knowing.peers.own, message))
            await pipeline.execute()
        most = 0

        def over() -> bool:
            nonlocal most
            most = max(most, len(knowing.peers._tasks))
            return not knowing.peers._tasks and len(knowing.peers._answered) == 3000

        await until(over, "all have come, and none is being answered")
        assert most <= 1000
        assert 0 < refused["too_many_questions"] <= 2100
