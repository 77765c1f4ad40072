"""What comes over the connection that listens is counted, delivered, kept or refused, in its order."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from gateway.broker.broker import Broker
from gateway.broker.secret import NOTICES, Secret, dump_notice
from gateway.memory.event import DURABLE_MARK
from gateway.memory.listening import ServerChanged
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings

pytestmark = pytest.mark.anyio

TICKS = b"gateway.tick.0"
GENERATION = 10**13


class Connection:
    """A connection on which these replies come, and then nothing more."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.sent: list[tuple[Any, ...]] = []

    async def read_response(self, **_: object) -> Any:
        if not self.replies:
            raise RedisConnectionError
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def send_command(self, *words: Any, **_: object) -> None:
        self.sent.append(words)


class Worker:
    """The broker's parts as a worker has them, without a Redis; and the receiver of what they hear."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.metrics = Metrics()
        self.broker = Broker(Settings(**settings), self.metrics, lambda: self.now)
        self.link: Any = self.broker.connect(self)
        self.signer = self.broker._signer
        self.signer.adopt(b"secret")
        self.connection = Connection()
        self.log: list[str] = []
        self.heard: list[Heard] = []
        self.begin()

    def begin(self) -> None:
        self.link._begin("server")
        self.link._floor = (GENERATION, 1)

    def era(self) -> tuple[int, int] | None:
        return self.broker.listening.era

    # -- as a receiver

    def deliver(self, batch: Sequence[Heard]) -> None:
        self.heard += batch
        self.log.append("+".join(each.event.data.decode() for each in batch))

    def commit(self) -> None:
        self.log.append("commit")

    def over(self, topics: Sequence[Topic]) -> None:
        self.log.append(f"over: {' '.join(topic.name for topic in topics)}")

    def opened(self, topics: Sequence[Topic]) -> None:
        self.log.append("opened " + ",".join(topic.name for topic in topics))

    def refused(self, topic: Topic) -> None:
        self.log.append(f"refused {topic.name}")

    def lost(self) -> None:
        self.log.append("lost")

    def ticked(self) -> None:
        self.log.append("ticked")

    # -- as Redis

    def want(self, *names: str) -> list[Topic]:
        return [self.broker.topics.want(name, "*" in name) for name in names]

    async def ask(self) -> list[tuple[Any, ...]]:
        """What is requested of Redis now."""
        self.connection.sent.clear()
        asking = asyncio.create_task(self.link._reconcile(self.connection))
        for _ in range(20):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        return list(self.connection.sent)

    async def come(self, *replies: Any) -> None:
        """Have these replies read together."""
        self.connection.replies += replies
        with contextlib.suppress(RedisConnectionError):
            await self.link._read(self.connection)
        await asyncio.sleep(0)

    def tick(self, number: int, generation: int = GENERATION) -> tuple[bytes, ...]:
        text = b"3 %d %d server " % (generation, number)
        return b"message", TICKS, text + b" " + self.signer.sign(TICKS, text)

    def durable(
        self, channel: bytes, number: int, body: bytes, generation: int = GENERATION, database: bytes = b"0"
    ) -> tuple[bytes, ...]:
        said = b"%d-%010d" % (generation, number)
        signature = self.signer.sign(database, said + b" " + channel)
        return message(channel, DURABLE_MARK + said + b" " + signature + b"\n" + body)

    async def open(self, *names: str) -> list[Topic]:
        topics = self.want(*names)
        for command, *asked in await self.ask():
            kind = command.lower().encode()
            await self.come(*[(kind, name, 1) for name in asked])
        await self.come(self.tick(2 if self.broker.listening.era is None else self.broker.listening.era[1] + 1))
        self.log.clear()
        return topics


def message(channel: bytes, payload: bytes) -> tuple[bytes, ...]:
    return b"message", channel, payload


def through(pattern: bytes, channel: bytes, payload: bytes) -> tuple[bytes, ...]:
    return b"pmessage", pattern, channel, payload


def kept(topic: Topic) -> list[str]:
    return [each.event.data.decode() for each in reversed(list(topic.ring.newest()))]


def state(topic: Topic) -> State:
    return topic.state


def counts(heard: Heard) -> list[tuple[int, ...] | None]:
    return [position and position[1:] for position in heard.positions]


async def test_what_comes_together_is_delivered_together_and_kept() -> None:
    worker = Worker()
    a, b = await worker.open("a", "b")
    await worker.come(message(b"a", b"1"), message(b"b", b"2"), message(b"a", b"3"))
    assert worker.log == ["1+2+3"]
    assert [(each.channel, each.topics, counts(each)) for each in worker.heard] == [
        ("a", (a,), [(2, 0, 1)]),
        ("b", (b,), [(2, 0, 1)]),
        ("a", (a,), [(2, 0, 2)]),
    ]
    assert (kept(a), kept(b)) == (["1", "3"], ["2"])
    assert worker.metrics.messages == 3
    await worker.come(message(b"a", b"4"))
    assert worker.log == ["1+2+3", "4"]


async def test_the_copies_of_one_message_are_one() -> None:
    worker = Worker()
    a, pattern = await worker.open("a", "*")
    await worker.come(message(b"a", b"1"), through(b"*", b"a", b"1"), through(b"*", b"c", b"2"))
    assert worker.log == ["1+2"]
    assert [(each.channel, each.topics, counts(each)) for each in worker.heard] == [
        ("a", (a, pattern), [(2, 0, 1), (2, 0, 1)]),
        ("c", (pattern,), [(2, 0, 2)]),
    ]
    assert (kept(a), kept(pattern)) == (["1"], ["1", "2"])
    assert next(iter(pattern.ring.newest())).channel == "c"
    assert worker.metrics.messages == 2


async def test_what_was_heard_before_a_tick_is_delivered_before_it() -> None:
    worker = Worker()
    (a,) = await worker.open("a")
    await worker.come(message(b"a", b"1"), worker.tick(3), message(b"a", b"2"))
    assert worker.log == ["1", "commit", "ticked", "2"]
    assert [counts(each) for each in worker.heard] == [[(2, 0, 1)], [(3, 0, 1)]]
    assert worker.metrics.ticks == 2
    assert a.state is State.OPEN


async def test_a_topic_is_open_once_its_last_request_was_answered_and_a_tick_has_come() -> None:
    worker = Worker()
    (a,) = worker.want("a")
    assert await worker.ask() == [("SUBSCRIBE", b"a")]
    worker.broker.topics.ask_again(a)
    assert await worker.ask() == [("SUBSCRIBE", b"a")]
    await worker.come((b"subscribe", b"a", 1), worker.tick(2))
    assert state(a) is State.WANTED, "the second request has not been answered"
    await worker.come((b"subscribe", b"a", 1))
    assert state(a) is State.CONFIRMED
    await worker.come(message(b"a", b"too early"), worker.tick(3))
    assert state(a) is State.OPEN
    assert worker.link.problem is None
    assert worker.log[-2:] == ["ticked", "opened a"]
    assert worker.heard == []


async def test_after_a_lost_connection_everything_is_asked_for_and_opened_again() -> None:
    worker = Worker()
    a, pattern = await worker.open("a", "b*")
    await worker.come(message(b"a", b"1"))
    worker.log.clear()
    worker.link._end()
    assert worker.log == ["commit", "lost"]
    worker.begin()
    assert worker.link.problem == "subscribing again"
    assert await worker.ask() == [("SUBSCRIBE", b"a"), ("PSUBSCRIBE", b"b*")]
    await worker.come((b"subscribe", b"a", 1), worker.tick(5))
    assert worker.link.problem == "subscribing again", "not all are"
    await worker.come((b"psubscribe", b"b*", 2), worker.tick(6))
    assert worker.link.problem is None
    assert (a.state, pattern.state) == (State.OPEN, State.OPEN)
    assert worker.metrics.redis_connects == 2


async def test_what_nobody_waits_for_any_more_keeps_no_worker_from_being_ready() -> None:
    worker = Worker(linger=5)
    await worker.open("a", "b")
    worker.link._end()
    worker.begin()
    worker.broker.topics.release(worker.want("b")[0])
    worker.now += 6
    sent = await worker.ask()
    assert [word for _, *words in sent for word in words].count(b"a") == 1
    await worker.come((b"subscribe", b"a", 1), worker.tick(5))
    assert worker.link.problem is None


async def test_topics_are_unsubscribed_from_when_their_lingering_is_over() -> None:
    worker = Worker(linger=5)
    (a, pattern) = await worker.open("a", "b*")
    worker.broker.topics.release(a)
    worker.broker.topics.release(pattern)
    worker.now += 6
    assert await worker.ask() == [("UNSUBSCRIBE", b"a"), ("PUNSUBSCRIBE", b"b*")]
    (again,) = worker.want("a")
    assert await worker.ask() == [("SUBSCRIBE", b"a")]
    await worker.come((b"unsubscribe", b"a", 1), (b"punsubscribe", b"b*", 0), worker.tick(4))
    assert state(again) is State.WANTED
    await worker.come((b"subscribe", b"a", 1), worker.tick(5), message(b"a", b"1"))
    assert state(again) is State.OPEN
    assert [each.topics for each in worker.heard] == [(again,)]


async def test_many_topics_are_asked_for_in_several_commands() -> None:
    worker = Worker(max_channels=3000)
    worker.want(*[f"c{number}" for number in range(2500)])
    assert [len(words) - 1 for words in await worker.ask()] == [1000, 1000, 500]


async def test_a_forbidden_channel_harms_no_other() -> None:
    worker = Worker()
    a, secret = worker.want("a", "secret")
    await worker.ask()
    await worker.come(NoPermissionError("no permissions to access a channel"))
    assert (a.state, secret.state) == (State.WANTED, State.WANTED)
    assert await worker.ask() == [("SUBSCRIBE", b"a"), ("SUBSCRIBE", b"secret")], "one by one"
    await worker.come((b"subscribe", b"a", 1), NoPermissionError("no permissions"), worker.tick(2))
    assert a.state is State.OPEN
    assert secret.state is State.REFUSED
    assert secret.refusal == "no permissions"
    assert "refused secret" in worker.log
    assert worker.metrics.redis_failures["NoPermissionError"] == 1
    assert worker.link.problem is None


async def test_a_forbidden_tick_channel_is_told_to_the_clock() -> None:
    worker = Worker()
    await worker.link._subscribe_control(worker.connection)
    sent = worker.connection.sent
    assert (sent[0], sent[-1]) == (("SUBSCRIBE", NOTICES), ("SUBSCRIBE", TICKS)), "who hears ticks hears the others"
    assert all(len(words) == 2 for words in sent)
    assert not worker.link._hears_ticks.is_set()
    await worker.come(*[(b"subscribe", name, 1) for _, name in sent[:-1]])
    assert not worker.link._hears_ticks.is_set(), "the others are no ticks"
    await worker.come(NoPermissionError("no ticks"))
    assert worker.broker.clock.deaf == "no ticks"
    assert worker.link._hears_ticks.is_set(), "the clock runs without them"
    worker.link._begin("server")
    assert worker.broker.clock.deaf == ""
    assert not worker.link._hears_ticks.is_set()


async def test_the_clock_waits_until_ticks_are_heard() -> None:
    worker = Worker()
    await worker.link._subscribe_control(worker.connection)
    await worker.come((b"subscribe", NOTICES, 1), (b"subscribe", TICKS, 2))
    assert worker.link._hears_ticks.is_set()


@pytest.mark.parametrize(
    "payload",
    [b"", b"3", b"3 10000000000000 9 server ", b"3 10000000000000 9 server  0123456789abcdef0123"],
)
async def test_ticks_that_are_not_redis_are_refused(payload: bytes) -> None:
    worker = Worker()
    await worker.come((b"message", TICKS, payload))
    assert worker.broker.listening.era is None
    assert worker.metrics.refused_messages["unsigned"] == 1
    assert worker.metrics.ticks == 0


async def test_a_signed_message_that_is_no_tick_is_refused() -> None:
    worker = Worker()
    for text, refused in ((b"3 x y z w", 1), (b"4 another version", 1)):
        await worker.come((b"message", TICKS, text + b" " + worker.signer.sign(TICKS, text)))
        assert worker.metrics.refused_messages["bad_control"] == refused, "other versions' ticks are left alone"
    assert worker.broker.listening.era is None


async def test_a_tick_that_is_published_again_counts_once() -> None:
    worker = Worker()
    worker.link._floor = None
    await worker.come(worker.tick(9))
    assert worker.era() is None, "it is not known yet which ticks are old"
    worker.link._floor = (GENERATION, 5)
    await worker.come(worker.tick(4), worker.tick(5))
    assert worker.era() is None, "issued before this connection listened"
    await worker.come(worker.tick(6), worker.tick(6), worker.tick(3))
    assert worker.era() == (GENERATION, 6)
    assert worker.metrics.ticks == 1
    assert worker.metrics.refused_messages["bad_control"] == 2


async def test_hooks_are_called_at_the_first_tick_of_each_connection() -> None:
    worker = Worker()
    called: list[str] = []
    worker.link.on_first_tick[:] = [lambda: called.append("first")]
    worker.link.on_lost[:] = [lambda: called.append("lost")]
    worker.link.on_connect.append(lambda: called.append("connect"))
    await worker.come(worker.tick(2), worker.tick(3))
    worker.link._end()
    worker.begin()
    await worker.come(worker.tick(4))
    assert called == ["first", "lost", "connect", "first"]


async def test_durable_messages_are_numbered_by_redis() -> None:
    worker = Worker()
    (a,) = await worker.open("a")
    await worker.come(worker.durable(b"a", 7, b"kept"), message(b"a", b"plain"))
    assert [counts(each) for each in worker.heard] == [[(2, 7, 0)], [(2, 7, 1)]]
    assert kept(a) == ["kept", "plain"]
    assert worker.metrics.refused_messages == {}


async def test_a_durable_message_that_comes_again_is_a_plain_one() -> None:
    worker = Worker(durable_channels=["orders"])
    await worker.open("a", "orders")
    await worker.come(
        worker.durable(b"a", 7, b"1"), worker.durable(b"a", 7, b"1"), worker.durable(b"orders", 6, b"2")
    )
    assert [counts(each) for each in worker.heard] == [[(2, 7, 0)], [(2, 7, 1)]]
    assert worker.metrics.refused_messages == {"not_durable": 1}


async def test_a_forged_durable_message_is_a_plain_one() -> None:
    worker = Worker(durable_channels=["orders"])
    (a, orders) = await worker.open("a", "orders")
    _, _, elsewhere = worker.durable(b"b", 7, b"of b")
    await worker.come(message(b"a", elsewhere), message(b"orders", elsewhere), worker.durable(b"orders", 8, b"real"))
    assert [(each.event.data, counts(each)) for each in worker.heard] == [
        (b"of b", [(2, 0, 1)]),
        (b"real", [(2, 8, 0)]),
    ]
    assert worker.metrics.refused_messages == {"not_durable": 1}
    assert worker.metrics.unsigned_messages == 2
    assert (kept(a), kept(orders)) == (["of b"], ["real"])


async def test_a_durable_message_of_another_database_is_a_plain_one() -> None:
    worker = Worker(durable_channels=["orders"])
    (a, _) = await worker.open("a", "orders")
    for number, name in enumerate((b"a", b"orders")):
        await worker.come(worker.durable(name, 7 + number, b"foreign", GENERATION + 1, database=b"1"))
    await worker.come(worker.durable(b"a", 7, b"new", database=b""), worker.durable(b"a", 8, b"old"))
    assert [counts(each) for each in worker.heard] == [[(2, 0, 1)], [(2, 7, 0)], [(2, 8, 0)]]
    assert worker.metrics.refused_messages == {"not_durable": 1}
    assert worker.metrics.unsigned_messages == 2
    assert kept(a) == ["foreign", "new", "old"]


async def test_a_tick_of_another_database_moves_nothing() -> None:
    worker = Worker()
    text = b"3 %d %d server " % (GENERATION + 1, 9)
    await worker.come(worker.tick(2))
    await worker.come((b"message", TICKS, text + b" " + worker.signer.sign(b"gateway.tick.1", text)))
    assert worker.era() == (GENERATION, 2)
    assert worker.metrics.refused_messages == {"unsigned": 1}


async def test_ticks_of_another_server_end_the_connection_once() -> None:
    worker = Worker()
    text = b"3 %d %d another " % (GENERATION + 1, 9)
    foreign = b"message", TICKS, text + b" " + worker.signer.sign(TICKS, text)
    await worker.come(worker.tick(2))
    with pytest.raises(ServerChanged):
        await worker.come(foreign)
    worker.link._end()
    worker.begin()
    await worker.come(foreign, worker.tick(3), foreign, worker.tick(4))
    assert worker.era() == (GENERATION, 4)
    assert worker.metrics.refused_messages == {"bad_control": 2}


async def test_nothing_is_read_until_a_new_secret_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind the notice is signed with it."""
    worker = Worker()
    (a,) = await worker.open("a")
    before = worker.durable(b"a", 7, b"before")
    notice = message(NOTICES, dump_notice(b"secret", Secret(b"new", 1)))
    worker.signer.adopt(b"new")
    behind = [worker.durable(b"a", 8, b"behind"), worker.tick(9)]
    worker.signer.adopt(b"secret")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def find() -> Secret:
        asked.set()
        await answer.wait()
        return Secret(b"new", 1)

    functions = worker.broker._functions
    functions._used = Secret(b"secret", 0)
    monkeypatch.setattr(functions, "_find", find)
    reading = asyncio.create_task(worker.come(before, notice, *behind))
    await asked.wait()
    assert kept(a) == ["before"]
    assert worker.log == ["before", "commit"], "what came before is delivered meanwhile"
    answer.set()
    await reading
    assert kept(a) == ["before", "behind"]
    assert worker.era() == (GENERATION, 9)
    assert worker.metrics.refused_messages == {}
    await worker.come(notice)
    assert worker.metrics.refused_messages == {"unsigned": 1}, "again"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_secret_that_no_notice_announces_ends_the_connection(announced: bool) -> None:
    worker = Worker()
    functions = worker.broker._functions
    functions._used, functions._found = Secret(b"secret", 1), Secret(b"new", 2)
    watching = asyncio.create_task(worker.link._watch_secret(worker.connection))
    functions.on_change()
    for _ in range(5):
        await asyncio.sleep(0)
    assert worker.connection.sent == [("PING",)]
    assert not watching.done(), "the notice may be on its way"
    if announced:
        functions.adopt()
    await worker.come((b"pong", b""))
    for _ in range(5):
        await asyncio.sleep(0)
    assert watching.done() is not announced
    if announced:
        watching.cancel()
    with pytest.raises(asyncio.CancelledError if announced else ServerChanged):
        await watching


async def test_a_durable_message_of_a_newer_generation_ends_the_connection() -> None:
    worker = Worker()
    await worker.open("a")
    with pytest.raises(ServerChanged):
        await worker.come(worker.durable(b"a", 7, b"1", GENERATION + 1))


@pytest.mark.parametrize(
    ("channel", "payload", "reason"),
    [
        (b"a", b"\xff", "not_utf8"),
        (b"a", b"x" * 101, "too_large"),
        (b"a", DURABLE_MARK, "bad_durable"),
        (b"a\n", b"1", "bad_channel"),
        (b"a\xff", b"1", "bad_channel"),
    ],
)
async def test_what_cannot_be_delivered_counts_all_the_same(channel: bytes, payload: bytes, reason: str) -> None:
    worker = Worker(max_payload_bytes=100)
    (every, another) = await worker.open("*", "a*")
    copies = [through(b"*", channel, payload), through(b"a*", channel, payload)]
    await worker.come(*copies, through(b"*", b"z", b"2"))
    assert worker.metrics.refused_messages == {reason: 1}
    assert [counts(each) for each in worker.heard] == [[(2, 0, 2)]], "the other workers count it, too"
    assert another.position((GENERATION, 2))[3] == 1
    assert (kept(every), kept(another)) == (["2"], [])


async def test_a_fault_of_ours_costs_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    await worker.open("a")

    def fault(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("gateway.broker.link.event_of", fault)
        await worker.come(message(b"a", b"1"))
    with monkeypatch.context() as patch:
        patch.setattr(worker, "deliver", fault)
        await worker.come(message(b"a", b"2"))
    await worker.come(message(b"a", b"3"))
    assert worker.metrics.refused_messages == {"fault": 1}
    assert [(each.event.data, counts(each)) for each in worker.heard] == [(b"3", [(2, 0, 3)])]


async def test_the_gateways_own_messages_are_no_events() -> None:
    worker = Worker(channel_prefix="app:")
    (pattern,) = await worker.open("*")
    await worker.come(
        through(b"app:*", b"app:gateway.worker", b"{}"),
        through(b"app:*", b"app:news", b"1"),
    )
    assert [(each.channel, counts(each)) for each in worker.heard] == [("news", [(2, 0, 1)])]
    assert kept(pattern) == ["1"]
    assert worker.metrics.messages == 1


async def test_without_positions_nothing_is_kept() -> None:
    worker = Worker()
    a, pattern = worker.want("a", "*")
    await worker.ask()
    await worker.come((b"subscribe", b"a", 1), (b"psubscribe", b"*", 2))
    worker.broker.clock.refusal = "out of memory"
    worker.link.open_uncounted(worker.broker.listening.open_uncounted())
    assert worker.log == ["commit", "commit", "opened a,*"]
    assert worker.link.problem is None, "what comes is delivered"
    await worker.come(message(b"a", b"1"), through(b"*", b"a", b"1"), through(b"*", b"b", b"2"))
    assert [(each.event.data, each.positions) for each in worker.heard] == [(b"1", (None, None)), (b"2", (None,))]
    assert (len(a.ring), len(pattern.ring)) == (0, 0)


async def test_a_sign_of_life_is_told_to_the_clock() -> None:
    worker = Worker()
    for sign in ((b"pong", b""), b"PONG"):
        worker.broker.clock._heard.clear()
        await worker.come(sign)
        assert worker.broker.clock._heard.is_set()
    assert worker.log == []


async def test_a_control_channel_has_its_turn_among_everything_else() -> None:
    worker = Worker()
    await worker.open("a")
    worker.link.control(b"gateway.mine", lambda payload: worker.log.append(f"mine {payload.decode()}"))
    await worker.come(message(b"a", b"1"), message(b"gateway.mine", b"x"), message(b"a", b"2"))
    assert worker.log == ["1", "commit", "mine x", "2"]


async def test_a_silent_connection_is_taken_for_dead_but_not_while_this_process_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(canary_interval=1.0)
    passed: list[float] = []

    async def sleep(seconds: float) -> None:
        worker.now += passed.pop(0) if passed else seconds

    with monkeypatch.context() as patch:
        patch.setattr("gateway.broker.link.asyncio.sleep", sleep)
        passed += [100.0, 2.5]
        with pytest.raises(ConnectionError, match=r"silent for 4\.0 s"):
            await worker.link._watch()
    assert worker.now == pytest.approx(102.5 + 4)
