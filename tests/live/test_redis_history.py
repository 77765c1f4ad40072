"""What is read of Redis' history, and which server it is, over a real Redis and in this process."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.broker.functions import Functions
from gateway.broker.library import BEGINNING, Library
from gateway.broker.redis_history import RedisHistory
from gateway.broker.server_identity import identity_of
from gateway.broker.signature import Signer
from gateway.broker.topics import WantedTopics
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.entry import Entry
from gateway.memory.history import History
from gateway.memory.hole import LOST, UNKNOWN, Hole
from gateway.memory.listening import Listening, ServerChanged
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings
from testing.process import free_port
from testing.servers import RedisServer

pytestmark = pytest.mark.anyio


class Reader:
    """A worker's view of Redis' history, without the worker."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.settings = Settings(channel_prefix="p:", durable_channels=("only.*",), **settings)
        self.redis = Redis.from_url(url, protocol=2)
        self.library = Library(self.redis, self.settings)
        self.functions = Functions(self.redis, self.library, Signer(), "")
        self.metrics = Metrics()
        history = History(self.settings, lambda: 0.0)
        self.topics = WantedTopics(Listening(history), history, b"p:", 100, 60.0, lambda: 0.0, 100)
        self.history = RedisHistory(
            self.settings, self.topics, self.library, DurableChannels(self.settings.durable_channels), self.metrics
        )

    def topic(self, name: str) -> Topic:
        return self.topics.want(name, "*" in name)

    async def publish(self, name: str, *texts: str) -> list[Position]:
        answers = [await self.library.publish(f"p:{name}", text.encode()) for text in texts]
        return [Position(*map(int, answer.split("."))) for answer in answers]

    async def within(self, *missing: tuple[Topic, Hole], give_up: bool = False) -> list[tuple[list[str], bool, str]]:
        found = await self.history.within(missing, give_up)
        return [(texts(found[each][0]), *found[each][1:]) for each in missing]


def texts(entries: Sequence[Entry]) -> list[str]:
    assert [entry.position for entry in entries] == sorted(entry.position for entry in entries)
    return [entry.event.data.decode() for entry in entries]


@pytest.fixture
async def reader(private_redis: RedisServer) -> AsyncIterator[Reader]:
    made = Reader(private_redis.url)
    await made.functions.install()
    made.functions.adopt()
    yield made
    await made.redis.aclose()


async def test_what_lies_in_a_hole(reader: Reader) -> None:
    one, two, three, four = await reader.publish("news", "1", "2", "3", "4")
    news, beside = reader.topic("news"), reader.topic("beside")
    await reader.publish("beside", "x")
    assert await reader.within(
        (news, Hole(one, three, UNKNOWN)),
        (news, Hole(Position(one.generation, 0), one, LOST)),
        (news, Hole(four, four._replace(durable=four.durable + 1), UNKNOWN)),
        (beside, Hole(one, two, UNKNOWN)),
    ) == [(["2", "3"], True, "not_kept"), (["1"], True, "redis_lost"), ([], True, "not_kept"), ([], True, "not_kept")]
    (entry,) = (await reader.history.within([(news, Hole(one, two, UNKNOWN))], False))[news, Hole(one, two, UNKNOWN)][
        0
    ]
    assert (entry.position, entry.channel) == (two, "news"), "without the prefix"
    assert reader.metrics.history_reads == 2


async def test_why_there_is_a_gap(reader: Reader) -> None:
    (one,) = await reader.publish("only.a", "1")
    only = reader.topic("only.a")
    later = one._replace(durable=one.durable + 100)
    assert await reader.within((only, Hole(one, later, UNKNOWN))) == [([], True, "trimmed")]
    assert await reader.within((only, Hole(one, later, LOST))) == [([], True, "redis_lost")]
    before = Hole(Position(one.generation - 1, 5), one, UNKNOWN)
    ((_, _, reason),) = await reader.within((only, before))
    assert reason == "redis_restarted"


async def test_what_a_pattern_stands_for(reader: Reader) -> None:
    begin = (await reader.publish("team.a", "before"))[0]
    await reader.publish("team.b", "1")
    await reader.publish("teams", "not this")
    last = (await reader.publish("team.a", "2"))[0]
    pattern = reader.topic("team.*")
    assert await reader.within((pattern, Hole(begin, last, UNKNOWN))) == [(["1", "2"], True, "not_kept")]


async def test_more_than_is_sent_again_is_cut(private_redis: RedisServer, reader: Reader) -> None:
    positions = await reader.publish("news", *map(str, range(10)))
    small = Reader(private_redis.url, replay_events=3)
    news, more = small.topic("news"), small.topic("more")
    last = (await reader.publish("more", "a", "b", "c", "d"))[-1]
    begin = Position(positions[0].generation, 0)
    hole, other = Hole(begin, positions[-1], UNKNOWN), Hole(begin, last, UNKNOWN)
    ((found, _, reason),) = await small.within((news, hole))
    assert (found, reason) == (["7", "8", "9"], "too_many")
    # Each may be a different stream's.
    both = await small.within((news, hole), (more, other))
    assert [each[0] for each in both] == [["7", "8", "9"], ["b", "c", "d"]]
    assert [each[2] for each in both] == ["too_many", "too_many"]
    await small.redis.aclose()


async def test_the_newest_of_several_topics(reader: Reader) -> None:
    await reader.publish("a", "a1", "a2", "a3")
    await reader.publish("b", "b1")
    last = (await reader.publish("a", "a4"))[0]
    a, b, none = reader.topic("a"), reader.topic("b"), reader.topic("none")
    found = await reader.history.newest(dict.fromkeys((a, b, none), last), 2, None)
    assert {topic.name: texts(entries) for topic, entries in found.entries.items()} == {
        "a": ["a3", "a4"], "b": ["b1"], "none": [],
    }  # fmt: skip
    assert not found.cut
    everything = await reader.history.newest({a: last}, 0, None)
    assert texts(everything.entries[a]) == ["a1", "a2", "a3", "a4"]
    up_to = await reader.history.newest({a: everything.entries[a][1].position}, 0, None)
    assert texts(up_to.entries[a]) == ["a1", "a2"]
    after = everything.entries[a][1].position
    newer = await reader.history.newest({a: last}, 0, (after.generation, after.number))
    assert texts(newer.entries[a]) == ["a3", "a4"]


async def test_the_newest_within_the_limits_of_a_replay(private_redis: RedisServer, reader: Reader) -> None:
    last = (await reader.publish("a", *map(str, range(10))))[-1]
    small = Reader(private_redis.url, replay_events=4)
    a = small.topic("a")
    found = await small.history.newest({a: last}, 0, None)
    assert texts(found.entries[a]) == ["6", "7", "8", "9"]
    assert dict(found.cut) in ({}, {a: "too_many"})
    assert texts((await small.history.newest({a: last}, 9, None)).entries[a]) == ["6", "7", "8", "9"]
    await small.redis.aclose()


async def test_what_cannot_be_delivered_is_left_out(reader: Reader) -> None:
    begin = (await reader.publish("news", "1"))[0]
    for message in (b"\xff\xfe", b'{"event": 7, "data": ""}'):
        await reader.library.publish("p:news", message)
    last = (await reader.publish("news", "2"))[0]
    news = reader.topic("news")
    assert await reader.within((news, Hole(begin, last, UNKNOWN))) == [(["2"], True, "not_kept")]
    assert texts((await reader.history.newest({news: last}, 9, None)).entries[news]) == ["1", "2"]


async def test_a_redis_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader(f"redis://127.0.0.1:{free_port()}/0")
    news = reader.topic("news")
    hole = Hole(Position(1, 1), Position(1, 2), UNKNOWN)
    with pytest.raises(RedisConnectionError):
        await reader.within((news, hole))
    assert await reader.within((news, hole), give_up=True) == [([], False, "history_unavailable")]
    found = await reader.history.newest({news: Position(1, 2)}, 5, None)
    assert dict(found.cut) == {news: "history_unavailable"}
    assert caplog.text.count("durable history could not be read") == 2


async def test_a_redis_that_refuses(reader: Reader) -> None:
    """That doesn't pass, so nobody waits for it."""
    (one,) = await reader.publish("news", "1")
    (key,) = [each async for each in reader.redis.scan_iter("*stream*news*")]
    await reader.redis.set(key, "something else")
    news = reader.topic("news")
    ((found, complete, _),) = await reader.within((news, Hole(Position(one.generation, 0), one, UNKNOWN)))
    assert (found, complete) == ([], False)


async def test_which_server_it_is(private_redis: RedisServer, reader: Reader) -> None:
    connection = Connection(port=private_redis.port, protocol=2)
    await connection.connect()  # type: ignore[no-untyped-call]
    identity = await identity_of(connection)
    assert identity == (await reader.redis.info("server"))["run_id"][:16]
    await reader.library.tick("ticks", BEGINNING, 0)
    await reader.redis.replicaof("127.0.0.1", str(free_port()))
    with pytest.raises(ServerChanged, match="replica"):
        await identity_of(connection)
    await connection.disconnect()


async def test_a_user_that_may_not_ask(private_redis: RedisServer) -> None:
    url = private_redis.limited_url(without=["info"])
    client = Redis.from_url(url, protocol=2)
    connection: Connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()  # type: ignore[no-untyped-call]
    assert await identity_of(connection) == ""
    await connection.disconnect()
    await client.aclose()
