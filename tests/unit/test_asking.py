"""Workers ask each other: who knows is found, asked for the events, and believed only if the message is signed."""

import asyncio
from typing import Any, Self

import pytest

from gateway.broker import peers
from gateway.broker.peers import Peers
from gateway.broker.signature import Signer
from gateway.broker.topics import WantedTopics
from gateway.broker.wire import Question, dump, dump_questions
from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import Known
from gateway.memory.position import Position
from gateway.memory.tick import Tick
from gateway.memory.topic import State, Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

pytestmark = pytest.mark.anyio


def at(tick: int, count: int = 0) -> Position:
    return Position(1, tick, 0, count)


class Redis:
    """Pub/Sub between workers of one process; a silent one is subscribed, and never answers."""

    def __init__(self) -> None:
        self.workers: list[Peers] = []
        self.silent = 0
        self.published: list[tuple[bytes, bytes]] = []

    async def publish(self, channel: bytes, message: bytes) -> int:
        self.published.append((channel, message))
        hearers = [each for each in self.workers if channel in (each.everyone, each.own)]
        for each in hearers:
            asyncio.get_running_loop().call_soon(each.received, channel, message)
        return len(hearers) + self.silent

    def pipeline(self, transaction: bool) -> "Pipeline":
        assert transaction, "who is counted must be who has got it"
        return Pipeline(self)

    def kinds(self) -> list[str]:
        return [message.split(b'["')[1].split(b'"')[0].decode() for _, message in self.published]


def receive(peers: Peers, message: bytes) -> None:
    """A message from another worker comes on the worker's own channel."""
    peers.received(peers.own, peers._signed(peers.own, message))


class Pipeline:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._message: tuple[bytes, bytes] = (b"", b"")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def publish(self, channel: bytes, message: bytes) -> None:
        self._message = channel, message

    def pubsub_numsub(self, channel: bytes) -> None:
        assert channel == self._message[0]

    async def execute(self) -> list[Any]:
        hearers = await self._redis.publish(*self._message)
        return [hearers + 7, [(self._message[0], hearers)]]  # through patterns, too


class Worker:
    """One that has heard ticks up to some number."""

    def __init__(self, redis: Any, since: int = 1, secret: bytes = b"secret") -> None:
        self.metrics = Metrics()
        self.history = History(Settings(), lambda: 0.0)
        self.listening = Listening(self.history)
        self.topics = WantedTopics(self.listening, self.history, b"", 10, 60.0, lambda: 0.0, 5)
        signer = Signer()
        signer.adopt(secret)
        self.peers = Peers(redis, signer, self.listening, self.topics, b"", 0, self.metrics)
        self.listening.connect("server")
        self.tick(since)
        redis.workers.append(self.peers)

    def tick(self, number: int) -> None:
        self.listening.tick(Tick(1, number, "server", {}))

    def open(self, name: str, tick: int) -> Topic:
        topic = self.topics.want(name, "*" in name)
        self.listening.subscribed(self.topics.key(topic), True)
        self.tick(tick)
        return topic

    def hear(self, topic: Topic, text: str) -> None:
        position = self.listening.count(topic, 0)
        assert position is not None
        self.history.append(topic.ring, Entry(position, topic.name, Event(text.encode())))


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def acquainted(redis: Redis) -> None:
    """Everybody has heard of everybody."""
    for worker in redis.workers:
        worker.greet()
    await settle()
    for worker in redis.workers:
        worker._acquainted = -1e9
    redis.published.clear()


def texts(known: list[Known]) -> list[tuple[Position, str]]:
    return [(each.position, each.event.data.decode()) for of in known for each in of.kept if isinstance(each, Entry)]


async def test_who_knows_tells_the_events() -> None:
    redis = Redis()
    asker, knows, other = Worker(redis, 9), Worker(redis), Worker(redis)
    news = knows.open("news", 2)
    for text in "ab":
        knows.hear(news, text)
    knows.tick(9)
    other.open("news", 9)
    await acquainted(redis)
    question, unknown = Question("news", False, at(2), at(9)), Question("other", False, at(2), at(9))
    found = await asker.peers.ask([question, unknown])
    assert texts(found[question]) == [(at(2, 1), "a"), (at(2, 2), "b")]
    assert [(known.start, known.end) for known in found[question]] == [(at(2), at(9))]
    assert found[unknown] == []
    assert redis.kinds() == ["ask", "known", "known", "tell", "told"], "only who knows is asked for events"
    assert asker.metrics.peer_questions == 1


async def test_who_knows_a_part_tells_that_part() -> None:
    redis = Redis()
    asker, early, late = Worker(redis, 9), Worker(redis), Worker(redis)
    early.hear(early.open("news", 2), "early")
    early.tick(3)
    late.hear(late.open("news", 5), "late")
    late.tick(9)
    await acquainted(redis)
    question = Question("news", False, at(1), at(9))
    found = await asker.peers.ask([question])
    assert sorted((known.start, known.end) for known in found[question]) == [(at(2), at(3)), (at(5), at(9))]
    assert sorted(texts(found[question])) == [(at(2, 1), "early"), (at(5, 1), "late")]


async def test_nobody_waits_for_a_worker_once_everything_is_known() -> None:
    redis = Redis()
    asker, knows = Worker(redis, 9), Worker(redis)
    knows.hear(knows.open("news", 2), "a")
    knows.tick(9)
    await acquainted(redis)
    redis.silent = 1
    asker.peers._heard_of("one that hangs", leaves=False)
    question = Question("news", False, at(2), at(9))
    async with asyncio.timeout(2):
        found = await asker.peers.ask([question])
    assert texts(found[question]) == [(at(2, 1), "a")]


async def test_a_worker_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_PATIENCE", 0.05)
    monkeypatch.setattr(peers, "_ROUNDS", 1)
    redis = Redis()
    asker, hangs = Worker(redis, 9), Worker(redis)
    await acquainted(redis)
    redis.workers.remove(hangs.peers)
    redis.silent = 1
    question = Question("news", False, at(2), at(9))
    assert await asker.peers.ask([question]) == {question: []}
    monkeypatch.setattr(peers, "_PATIENCE", 60.0)
    async with asyncio.timeout(5):
        assert await asker.peers.ask([question]) == {question: []}, "not again, until it is heard of"


async def test_who_comes_back_during_a_question_is_asked_it_then() -> None:
    """After an outage the first one back waited five seconds for others that had never heard what it asked."""
    redis = Redis()
    asker, knows = Worker(redis, 9), Worker(redis)
    knows.hear(knows.open("news", 2), "a")
    knows.tick(9)
    await acquainted(redis)
    redis.workers.remove(knows.peers)
    redis.silent = 1
    question = Question("news", False, at(2), at(9))
    asking = asyncio.create_task(asker.peers.ask([question]))
    await settle()
    assert not asking.done()
    redis.workers.append(knows.peers)
    knows.peers.greet()
    async with asyncio.timeout(2):
        assert texts((await asking)[question]) == [(at(2, 1), "a")]


async def test_who_is_back_waits_only_a_moment_for_connections_that_nobody_is_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis counts those that died in the outage; all its workers have answered."""
    monkeypatch.setattr(peers, "_ACQUAINTANCE", 0.05)
    monkeypatch.setattr(peers, "_PATIENCE", 60.0)
    redis = Redis()
    asker, other = Worker(redis, 9), Worker(redis)
    await acquainted(redis)
    redis.silent = 2
    asker.peers.greet()
    async with asyncio.timeout(5):
        assert not await asker.peers.heard_all(at(1), at(99))
        assert await asker.peers.ask([Question("news", False, at(2), at(9))])
    assert set(asker.peers._known) == {other.peers.name}


async def test_who_starts_waits_for_everybody_that_redis_knows_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_ACQUAINTANCE", 0.01)
    redis = Redis()
    redis.silent = 1
    asker = Worker(redis, 9)
    asker.peers.greet()
    asking = asyncio.create_task(asker.peers.ask([Question("news", False, at(2), at(9))]))
    await asyncio.sleep(0.05)
    assert not asking.done(), "the one that is silent has not had the time to answer"
    asker.peers.lost()
    await asking


async def test_who_left_after_its_answer_stands_for_nobody_else() -> None:
    redis = Redis()
    asker, leaves, stays = Worker(redis, 9), Worker(redis), Worker(redis)
    stays.hear(stays.open("news", 2), "a")
    stays.tick(9)
    await acquainted(redis)
    redis.workers.remove(stays.peers)
    redis.silent = 1
    question = Question("news", False, at(2), at(9))
    asking = asyncio.create_task(asker.peers.ask([question]))
    await settle()
    await leaves.peers.answered()
    await settle()
    assert not asking.done()
    redis.workers.append(stays.peers)
    stays.peers.greet()
    async with asyncio.timeout(2):
        assert texts((await asking)[question]) == [(at(2, 1), "a")]


async def test_who_is_alone_waits_for_nobody() -> None:
    redis = Redis()
    asker = Worker(redis, 9)
    await acquainted(redis)
    question = Question("news", False, at(2), at(9))
    async with asyncio.timeout(2):
        assert await asker.peers.ask([question]) == {question: []}
        assert not await asker.peers.heard_all(at(1), at(9))


async def test_who_said_goodbye_is_not_waited_for() -> None:
    redis = Redis()
    asker, leaves = Worker(redis, 9), Worker(redis)
    await acquainted(redis)
    await leaves.peers.answered()
    await settle()
    redis.workers.remove(leaves.peers)
    redis.silent = 1
    async with asyncio.timeout(2):
        assert not await asker.peers.heard_all(at(1), at(9))


async def test_a_lost_connection_ends_every_question() -> None:
    redis = Redis()
    asker = Worker(redis, 9)
    redis.silent = 1
    asking = [
        asyncio.create_task(asker.peers.ask([Question("news", False, at(2), at(9))])),
        asyncio.create_task(asker.peers._ask_one("somebody", "inherit", [], 60.0)),
    ]
    await settle()
    asker.peers._heard_of("somebody", leaves=False)
    rounds = 0
    while not all(task.done() for task in asking):
        asker.peers.lost()
        await settle()
        rounds += 1
    assert rounds <= 4
    assert asker.peers._pending == {}


async def test_what_nobody_has_signed_is_not_read() -> None:
    redis = Redis()
    asker, stranger = Worker(redis, 9), Worker(redis, secret=b"another")
    await redis.publish(asker.peers.everyone, b'["hello", "stranger", 0, null]')
    stranger.peers.greet()
    await settle()
    assert asker.metrics.refused_messages == {"unsigned": 2}
    assert redis.kinds() == ["hello", "hello"], "no answer"


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (b"no json", 1),
        (b"[]", 1),
        (dump("ask", "x", 1, "no questions"), 1),
        (dump("heard", "x", 1, [1, 2, 3]), 1),
        (dump("told", "x", 0, None), 0),
        (dump("tell", "x", 1, [1]), 1),
        (dump("a kind of a newer version", "x", 1, None), 0),
        (dump("known", "x", 77, []), 0),
    ],
)
async def test_what_cannot_be_read_is_refused(message: bytes, refused: int) -> None:
    worker = Worker(Redis())
    receive(worker.peers, message)
    await settle()
    assert worker.metrics.refused_messages["bad_control"] == refused


async def test_a_question_that_is_published_again_is_answered_once() -> None:
    redis = Redis()
    asker, answers = Worker(redis, 9), Worker(redis)
    await acquainted(redis)
    await asker.peers.ask([Question("news", False, at(2), at(9))])
    (question,) = [message for _, message in redis.published if b'"ask"' in message]
    redis.published.clear()
    answers.peers.received(answers.peers.everyone, question)
    await settle()
    assert redis.kinds() == []
    assert answers.metrics.refused_messages == {"repeated_question": 1}
    receive(answers.peers, dump("stay", asker.peers.name, 1, []))
    await settle()
    assert redis.kinds() == ["known"], "another kind of question is another question"


async def test_of_questions_so_many_are_answered_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_MAX_TASKS", 3)
    worker = Worker(Redis())
    for number in range(5):
        receive(worker.peers, dump("ask", "x", number, []))
    await worker.peers.answered()
    assert worker.metrics.refused_messages == {"too_many_questions": 2}


async def test_of_repeated_questions_so_many_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_ANSWERED", 3)
    worker = Worker(Redis())
    for number in (1, 2, 3, 3, 4, 1):
        receive(worker.peers, dump("ask", "x", number, []))
    await settle()
    assert worker.metrics.refused_messages == {"repeated_question": 1}, "the oldest is forgotten"


@pytest.mark.parametrize(("since", "newest", "heard"), [(3, 9, True), (4, 9, False), (3, 8, False), (2, 10, True)])
async def test_whether_somebody_heard_everything(since: int, newest: int, heard: bool) -> None:
    redis = Redis()
    asker, witness = Worker(redis, 9), Worker(redis, since)
    witness.tick(newest)
    await acquainted(redis)
    async with asyncio.timeout(3):
        assert await asker.peers.heard_all(at(3), at(9)) is heard
    assert redis.kinds() == ["heard", "did" if heard else "missed"]


async def test_of_many_witnesses_few_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = Redis()
    asker, witnesses = Worker(redis, 9), [Worker(redis) for _ in range(5)]
    for each in witnesses:
        each.tick(9)
    await acquainted(redis)
    delays = iter([0.0, 0.05, 0.05, 0.05, 0.05])
    monkeypatch.setattr("gateway.broker.peers.random.uniform", lambda *_: next(delays))
    assert await asker.peers.heard_all(at(3), at(9))
    for each in witnesses:
        await each.peers.answered()
    assert redis.kinds().count("did") == 1
    assert all(each.peers._silenced == set() for each in witnesses[1:])


async def test_what_only_this_worker_knows_is_handed_over() -> None:
    redis = Redis()
    leaves, heir = Worker(redis), Worker(redis)
    news, known = leaves.open("news", 2), leaves.open("known", 3)
    leaves.hear(news, "a")
    leaves.hear(known, "b")
    heir.open("known", 3)
    for each in (leaves, heir):
        each.tick(5)
    await acquainted(redis)
    leaving = asyncio.create_task(leaves.peers.leave(30.0))
    await settle()
    taken = heir.topics.find("news", False)
    assert taken is not None
    heir.listening.subscribed(heir.topics.key(taken), True)
    for each in (leaves, heir):
        each.tick(6)
    await leaving
    assert state(taken) is State.OPEN
    assert heir.topics.is_idle(taken)
    assert heir.topics.next_expiry() == 60.0
    assert taken.ring.since == at(2)
    assert kept(taken) == [(at(3, 1), "a")]
    assert heir.metrics.peer_questions == 1
    assert "inherit" in redis.kinds()
    assert not any(b'"inherit"' in message and b'known"' in message for _, message in redis.published), (
        "the heir knows the other topic itself"
    )


async def test_who_is_leaving_takes_nothing_over() -> None:
    redis = Redis()
    leaves, other = Worker(redis), Worker(redis)
    leaves.open("news", 2)
    other.peers.leaving = True
    await acquainted(redis)
    async with asyncio.timeout(3):
        await leaves.peers.leave(30.0)
    assert redis.kinds() == ["stay", "known"]
    assert other.topics.find("news", False) is None
    asked = dump_questions([Question("x", False, at(1), at(2))])
    receive(other.peers, dump("inherit", leaves.peers.name, 9, asked))
    await other.peers.answered()
    assert other.topics.find("x", False) is None
    assert "inherited" in redis.kinds(), "it says so"


async def test_an_heir_takes_no_more_than_it_may() -> None:
    redis = Redis()
    heir = Worker(redis)
    for number in range(9):
        heir.open(f"c{number}", 2 + number)
    two = [Question(name, False, at(1), at(2)) for name in ("x", "y")]
    receive(heir.peers, dump("inherit", "leaver", 1, dump_questions(two)))
    await settle()
    assert (heir.topics.find("x", False), heir.topics.find("y", False)) == (None, None)
    receive(heir.peers, dump("inherit", "leaver", 2, dump_questions(two[:1])))
    await settle()
    assert heir.topics.find("x", False) is not None


async def test_events_are_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_TOLD_BYTES", 15)
    monkeypatch.setattr(peers, "_TOLD_ROOM", 45)
    redis = Redis()
    asker, knows = Worker(redis, 9), Worker(redis)
    topics = [knows.open(name, 2 + place) for place, name in enumerate("abc")]
    for topic in topics:
        for _ in range(2):
            knows.hear(topic, "x" * 10)
    knows.tick(9)
    await acquainted(redis)
    questions = [Question(topic.name, False, at(4), at(9)) for topic in topics]
    found = await asker.peers.ask(questions)
    told = [
        sum(isinstance(each, Entry) for known in found[question] for each in known.kept) for question in questions
    ]
    assert told == [2, 2, 0], "the room is used up"
    assert redis.kinds().count("told") == 3
    (last,) = found[questions[2]]
    assert [each for each in last.kept if isinstance(each, Hole)] == [Hole(at(4), at(4, 2), UNKNOWN)]


def state(topic: Topic) -> State:
    return topic.state


def kept(topic: Topic) -> list[object]:
    def described(each: Kept) -> object:
        return (each.position, each.event.data.decode()) if isinstance(each, Entry) else "hole"

    assert topic.ring.since is not None
    return [described(each) for each in topic.ring.after(topic.ring.since)]
