"""Positions in Redis: the numbers, the history they belong to, and when Redis may say that nothing is missing."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, ResponseError

from gateway.broker.embedded import EmbeddedRedis
from gateway.broker.functions import Functions
from gateway.broker.library import BEGINNING, Found, Kept, Library, Newest, Place, Position, Range, Wanted
from gateway.broker.signature import Signer
from gateway.settings import Settings
from testing.process import free_port
from testing.servers import RedisServer
from testing.waiting import until, wait_until

pytestmark = pytest.mark.anyio

TICKS = "gateway.ticks"
POSITIONS = "gateway.positions"
AGE_MS = 86_400_000
MINUTE_MS = 60_000
SEEDS = 12
SETTINGS = Settings(durable_age=AGE_MS / 1000)

# What counts, stores and publishes in the script of the version before positions.
PREVIOUS = """
local time = redis.call('TIME')
local ms, seq = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), 0
local last = redis.call('HGET', 'gateway.clock', 'last')
if last then
  local last_ms, last_seq = string.match(last, '^(%d+)-(%d+)$')
  if ms <= tonumber(last_ms) then ms, seq = tonumber(last_ms), tonumber(last_seq) + 1 end
end
local id = string.format('%.0f-%.0f', ms, seq)
redis.call('HSET', 'gateway.clock', 'last', id)
redis.call('XADD', 'gateway.stream:' .. KEYS[1], id, 'd', ARGV[1])
redis.call('PUBLISH', KEYS[1], '\\30gateway:' .. id .. '\\n' .. ARGV[1])
return id
"""


def entry_id(place: Place) -> bytes:
    return b"%d-%d" % place


class Store:
    """A library with its Redis, and the shortest way to ask it."""

    def __init__(self, url: str, settings: Settings = SETTINGS) -> None:
        self.redis = Redis.from_url(url, protocol=2)
        self.library = Library(self.redis, settings)
        self.signer = Signer()
        self.functions = Functions(self.redis, self.library, self.signer, settings.secret)

    async def tick(self) -> Place:
        """A new tick's place."""
        reply = await self.library.tick(TICKS, BEGINNING, 0)
        return Place(reply.generation, reply.number)

    async def publish(self, channel: str, message: bytes = b"x") -> Position:
        return Position(*map(int, (await self.library.publish(channel, message)).split(".")))

    async def publish_previous(self, channel: str, message: bytes = b"old") -> Place:
        """As a worker of the previous version does."""
        id_ = await cast("Any", self.redis.eval(PREVIOUS, 1, channel, message))
        return Place(*map(int, id_.split(b"-")))

    async def find(self, channel: str, after: Place, until: Place) -> Found:
        reading = await self.library.read([Range(channel, after, until)], 1000, 1_000_000)
        return reading.found[0]

    async def whole(self, channel: str, after: Place, until: Place) -> bool:
        return (await self.find(channel, after, until)).whole

    async def field(self, name: str) -> str:
        value = await cast("Any", self.redis.hget(POSITIONS, name))
        return (value or b"").decode()

    async def set_field(self, name: str, value: str | int) -> None:
        await cast("Any", self.redis.hset(POSITIONS, name, str(value)))

    async def now(self) -> int:
        """The server's clock in ms."""
        seconds, micros = await cast("Any", self.redis.time())
        return int(seconds) * 1000 + int(micros) // 1000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["redis", "embedded"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "embedded":
        with EmbeddedRedis(free_port()) as embedded:
            yield embedded.url
    else:
        with RedisServer(tmp_path_factory.mktemp("redis")) as server:
            yield server.url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """An empty Redis, real or embedded."""
    opened = Store(url)
    await opened.redis.flushall()
    yield opened
    await opened.redis.aclose()


# ---- numbers and ticks


async def test_numbers_rise_across_ticks_and_messages_of_several_clients(store: Store, url: str) -> None:
    async def work(name: str) -> list[int]:
        own = Store(url)
        numbers = []
        for place in range(20):
            numbers.append((await own.publish(f"{name}{place % 2}")).number)
            numbers.append((await own.tick()).number)
        await own.redis.aclose()
        return numbers

    issued = await asyncio.gather(*map(work, "abcd"))
    for numbers in issued:
        assert all(earlier < later for earlier, later in pairwise(numbers))
    assert len(set().union(*issued)) == 160


async def test_a_tick_says_where_it_comes_from(store: Store) -> None:
    async with store.redis.pubsub() as heard:
        await heard.subscribe(TICKS)
        tick = await store.tick()
        _, message = [await heard.get_message(timeout=20) for _ in range(2)]
        assert message is not None
        version, generation, number, identity, lineage, _ = message["data"].decode().split(" ")
        assert (version, Place(int(generation), int(number)), lineage) == ("3", tick, "")
        run_id, _, _ = (await store.field("owner")).partition(":")
        assert identity == run_id[:16]
        assert len(generation) in (14, 15, 16)

        await store.set_field("owner", "another")
        again = await store.tick()
        message = await heard.get_message(timeout=20)
        assert message is not None
        assert message["data"].decode().split(" ")[4] == f"{tick.generation}:{tick.number}"
        assert again > tick


async def test_a_tick_is_issued_only_if_none_is_on_its_way(store: Store) -> None:
    first = await store.tick()
    second = await store.library.tick(TICKS, first, 0)
    assert second == (first.generation, first.number + 1, 0)
    assert await store.library.tick(TICKS, first, 0) == second, "the second is on its way to who heard the first"
    foreign = Place(first.generation - 1, second.number)
    assert await store.library.tick(TICKS, foreign, 0) == second, "it is on its way to who heard another generation"
    third = await store.library.tick(TICKS, BEGINNING, 0)
    assert third.number == second.number + 1, "who heard none may have subscribed after the newest"


async def test_ticks_keep_a_distance(store: Store) -> None:
    first = await store.tick()
    hour = 3_600_000
    reply = await store.library.tick(TICKS, first, hour)
    assert (reply.generation, reply.number) == first
    assert 0 < reply.wait_ms <= hour
    await store.set_field("ticked_ms", await store.now() - hour)
    second = await store.library.tick(TICKS, first, hour)
    assert second == (first.generation, first.number + 1, 0)
    await store.set_field("ticked_ms", await store.now() + 10 * hour)
    third = await store.library.tick(TICKS, Place(*second[:2]), hour)
    assert third == (first.generation, first.number + 2, 0), "the server's clock was set back"


async def test_a_message_names_the_tick_before_it(store: Store) -> None:
    before = await store.publish("news")
    tick = await store.tick()
    after = await store.publish("news")
    assert (before.tick, after.tick) == (0, tick.number)
    found = await store.find("news", BEGINNING, after.place)
    assert found == Found(True, [Kept(before, None, b"x"), Kept(after, before, b"x")])


async def test_the_wire_names_generation_and_number(store: Store) -> None:
    async with store.redis.pubsub() as heard:
        await heard.subscribe("news")
        position = await store.publish("news", b"hello")
        _, message = [await heard.get_message(timeout=20) for _ in range(2)]
        assert message is not None
        assert message["data"] == b"\x1egateway:%d-%010d\nhello" % position.place


# ---- generations


async def test_flushall_begins_a_generation_without_ancestors(store: Store) -> None:
    generations = []
    for _ in range(5):  # several within a millisecond
        generations.append((await store.publish("news")).generation)
        await store.redis.flushall()
    assert sorted(set(generations)) == generations
    assert (await store.library.read([], 1, 1)).lineage == []


async def test_reading_begins_a_generation_too(store: Store) -> None:
    before = await store.publish("news")
    await store.set_field("owner", "another")
    reading = await store.library.read([Range("news", BEGINNING, before.place)], 10, 1000)
    assert reading.generation > before.generation
    assert reading.lineage == [before.place]
    assert not reading.found[0].whole, "a position of an ended generation proves nothing"


async def test_the_lineage_is_bounded(store: Store) -> None:
    ended = []
    for _ in range(70):
        ended.append(await store.tick())
        await store.set_field("owner", "another")
    assert (await store.library.read([], 1, 1)).lineage == ended[-64:]


async def test_no_range_across_generations_is_whole(store: Store) -> None:
    first = await store.publish("news")
    await store.set_field("owner", "another")
    second = await store.publish("news")
    assert [kept.position for kept in (await store.find("news", first.place, second.place)).messages] == [second]
    assert not await store.whole("news", first.place, second.place)
    assert not await store.whole("news", BEGINNING, second.place), "there is a lineage"
    begun = Place(second.generation, second.number - 1)
    assert await store.whole("news", begun, second.place)


async def test_positions_lost_alone(store: Store) -> None:
    await store.publish("news")
    await store.tick()
    lost = await store.publish("news")
    await store.redis.delete(POSITIONS)
    after = await store.publish("news")
    assert after.generation > lost.generation
    assert not await store.whole("news", lost.place, after.place)
    assert not await store.whole("news", BEGINNING, after.place), "what came between the two, nobody knows"
    assert await store.whole("news", Place(after.generation, 1), after.place)


async def test_a_redis_stream_ahead_of_the_generation_is_replaced(store: Store) -> None:
    await cast("Any", store.redis.xadd("gateway.stream:news", {"d": "lost"}, id=f"{2**53}-1"))
    position = await store.publish("news")
    entries = await cast("Any", store.redis.xrange("gateway.stream:news"))
    assert [id_ for id_, _ in entries] == [entry_id(position.place)]
    assert not await store.whole("news", BEGINNING, position.place)


async def test_a_foreign_key_in_the_way_is_reported(store: Store) -> None:
    await store.redis.set("gateway.stream:news", "mine")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store.publish("news")
    assert await store.redis.get("gateway.stream:news") == b"mine"
    await store.redis.delete("gateway.stream:news")
    position = await store.publish("news")
    assert await store.whole("news", BEGINNING, position.place)


async def test_a_restart_and_a_rollback(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        store = Store(server.url)
        saved = await store.publish("news")
        await store.redis.save()
        lost = [await store.publish("news") for _ in range(30)]
        await store.redis.aclose()
        server.kill()
        server.start()
        store = Store(server.url)
        reading = await store.library.read([Range("news", saved.place, lost[-1].place)], 100, 1000)
        assert reading.generation > saved.generation
        assert reading.lineage == [saved.place], "what came after that belongs to no history"
        assert reading.found == [Found(False, [])]
        new = await store.publish("news")
        assert new.generation == reading.generation
        assert await store.whole("news", Place(new.generation, saved.number), new.place)
        await store.redis.aclose()


async def test_a_promoted_replica_continues_the_history(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path, "--repl-diskless-sync-delay", "0") as primary,
        RedisServer(tmp_path, "--replicaof", "127.0.0.1", str(primary.port)) as replica,
    ):
        first, second = Store(primary.url), Store(replica.url)
        # The first replica gives its primary a new replid, which ends a generation.
        await until(lambda: _linked(replica), "replica linked")
        await first.publish("news")
        last = await first.publish("news")
        assert await cast("Any", first.redis.wait(1, 20_000)) == 1
        for key in (POSITIONS, "gateway.clock"):
            hashes = [await cast("Any", store.redis.hgetall(key)) for store in (first, second)]
            assert hashes[0] == hashes[1], "scripts replicate their effects"
        with pytest.raises(ReadOnlyError):
            await second.find("news", BEGINNING, last.place)
        await cast("Any", second.redis.replicaof("NO", "ONE"))
        new = await second.publish("news")
        assert new.generation > last.generation
        assert (await second.library.read([], 1, 1)).lineage == [last.place]
        assert (await first.publish("news")).generation == last.generation, "the old one doesn't know"
        for store in (first, second):
            await store.redis.aclose()


def _linked(replica: RedisServer) -> bool:
    with replica.client() as client:
        return bool(client.info("replication")["master_link_status"] == "up")


async def test_a_redis_that_refuses_to_count(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        store = Store(server.url)
        position = await store.publish("news")
        await store.redis.config_set("maxmemory", "1")
        for refused in (store.publish("news"), store.tick()):
            with pytest.raises(ResponseError):
                await refused
        assert await store.whole("news", BEGINNING, position.place), "reading goes on"
        await store.redis.config_set("maxmemory", "0")
        assert (await store.publish("news")).number == position.number + 1, "nothing was counted"
        await store.redis.aclose()


# ---- whole


async def test_whole_within_a_generation(store: Store) -> None:
    begun = await store.tick()
    places = [await store.publish("news") for _ in range(4)]
    ended = await store.tick()
    for start, after in enumerate([begun, *(position.place for position in places)]):
        for end in range(start, 5):
            until_ = places[end - 1].place if end else begun
            found = await store.find("news", after, until_)
            assert found.whole
            assert [kept.position for kept in found.messages] == places[start:end]
    assert await store.whole("news", places[-1].place, ended), "nothing came since"
    assert await store.whole("never", begun, ended)
    assert await store.whole("never", BEGINNING, ended)
    assert not await store.whole("news", Place(begun.generation - 1, begun.number), ended)
    assert not await store.whole("news", begun, Place(begun.generation + 1, 99)), "of a generation to come"


async def test_a_deleted_redis_stream_is_noticed(store: Store) -> None:
    begun = await store.tick()
    first = await store.publish("news")
    await store.redis.delete("gateway.stream:news")
    ended = await store.tick()
    assert not await store.whole("news", begun, ended), "the channel's newest is missing"
    assert await store.whole("news", first.place, ended)
    later = await store.publish("news")
    assert not await store.whole("news", begun, later.place)
    assert not await store.whole("news", begun, ended), "the message after the end names the missing one"
    assert await store.whole("news", ended, later.place)
    await store.redis.delete("gateway.stream:news")
    assert not await store.whole("news", first.place, ended), "no message after the end proves anything"


async def test_a_message_deleted_in_the_middle_is_noticed(store: Store) -> None:
    places = [(await store.publish("news")).place for _ in range(5)]
    await cast("Any", store.redis.xdel("gateway.stream:news", entry_id(places[2])))
    assert not await store.whole("news", BEGINNING, places[4])
    assert not await store.whole("news", places[1], places[3])
    assert not await store.whole("news", places[1], places[2]), "the missing one is the last of the range"
    assert await store.whole("news", BEGINNING, places[0])
    assert await store.whole("news", places[2], places[4])


async def test_trimmed_messages_are_noticed(store: Store) -> None:
    places = [(await store.publish("news")).place for _ in range(5)]
    await cast("Any", store.redis.xtrim("gateway.stream:news", maxlen=2, approximate=False))
    assert not await store.whole("news", BEGINNING, places[4])
    assert not await store.whole("news", places[1], places[4])
    assert await store.whole("news", places[2], places[4])


async def test_events_above_the_limit_are_trimmed(url: str, store: Store) -> None:
    small = Store(url, Settings(durable_events=10))
    places = [(await small.publish("news")).place for _ in range(250)]
    kept = await cast("Any", small.redis.xlen("gateway.stream:news"))
    assert 10 <= kept <= 110, "whole nodes of a Redis Stream are removed"
    assert not await small.whole("news", BEGINNING, places[-1])
    assert await small.whole("news", places[-11], places[-1])
    await small.redis.aclose()


class Schedule:
    """Two channels and what can happen to them, in random order; what Redis calls whole is checked."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.rng = random.Random(seed)
        self.claims = 0
        self._published: dict[str, list[Place]] = {"a": [], "b": []}
        self._counted: list[Place] = []  # messages of the present version
        self._ticks: list[Place] = []
        self._evicted = False
        self._actions = {
            self.publish: 30, self.tick: 15, self.read: 40, self.delete_message: 4, self.trim: 3,
            self.delete_stream: 3, self.end_generation: 2, self.evict_positions: 1, self.prune: 2,
            self.publish_previous: 4,
        }  # fmt: skip

    async def play(self, steps: int) -> None:
        await self.tick("a")
        for channel in self._published:
            await self.publish(channel)
        for _ in range(steps):
            (action,) = self.rng.choices([*self._actions], [*self._actions.values()])
            await action(self.rng.choice("ab"))

    async def publish(self, channel: str) -> None:
        self._counted.append((await self.store.publish(channel)).place)
        self._published[channel].append(self._counted[-1])

    async def publish_previous(self, channel: str) -> None:
        # On a channel that this version doesn't know, a lost message of the previous version leaves no trace.
        if await self.store.field(f"n:{channel}"):
            self._published[channel].append(await self.store.publish_previous(channel))

    async def tick(self, _: str) -> None:
        self._ticks.append(await self.store.tick())

    async def read(self, channel: str) -> None:
        after = self.rng.choice([BEGINNING, *self._ticks[-4:], *self._published[channel][-4:]])
        last = self.rng.choice(self._ticks[-4:])
        found = await self.store.find(channel, after, last)
        if found.whole and not (self._evicted and after == BEGINNING):
            expected = [place for place in self._published[channel] if after < place <= last]
            assert [kept.position.place for kept in found.messages] == expected
            self.claims += 1

    async def delete_message(self, channel: str) -> None:
        # Not of the previous version: what follows doesn't always name it.
        name = entry_id(self.rng.choice(self._counted[-4:]))
        await cast("Any", self.store.redis.xdel(f"gateway.stream:{channel}", name))

    async def trim(self, channel: str) -> None:
        left = self.rng.randrange(4)
        await cast("Any", self.store.redis.xtrim(f"gateway.stream:{channel}", maxlen=left, approximate=False))

    async def delete_stream(self, channel: str) -> None:
        await self.store.redis.delete(f"gateway.stream:{channel}")

    async def end_generation(self, _: str) -> None:
        await self.store.set_field("owner", str(self.rng.random()))

    async def evict_positions(self, _: str) -> None:
        await self.store.redis.delete(POSITIONS)
        self._evicted = True

    async def prune(self, channel: str) -> None:
        await self.delete_stream(channel)
        await self.store.redis.zadd("gateway.ages", {channel: 1})
        await self.publish("b" if channel == "a" else "a")


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whole_never_hides_a_loss(store: Store, seed: int) -> None:
    schedule = Schedule(store, seed)
    await schedule.play(150)
    assert schedule.claims


# ---- limits


async def test_the_newest_of_all_channels_survive_a_limit(store: Store) -> None:
    begun = await store.tick()
    numbers = [(await store.publish("ab"[place % 2], b"%d" % place)).place for place in range(10)]
    ranges = [Range(channel, begun, numbers[-1]) for channel in ("a", "b", "never")]
    reading = await store.library.read(ranges, 3, 1000)
    assert [[kept.message for kept in found.messages] for found in reading.found] == [[b"8"], [b"7", b"9"], []]
    assert [found.whole for found in reading.found] == [False, False, True]
    reading = await store.library.read(ranges, 10, 1000)
    assert [found.whole for found in reading.found] == [True, True, True]
    reading = await store.library.read(ranges, 10, 4)
    assert [len(found.messages) for found in reading.found] == [2, 2, 0]
    reading = await store.library.read(ranges, 10, 0)
    assert [len(found.messages) for found in reading.found] == [0, 1, 0], "one always fits"


async def test_a_quiet_channel_beside_a_flooded_one_is_whole_if_it_is_newer(store: Store) -> None:
    begun = await store.tick()
    for _ in range(300):
        await store.publish("flood")
    last = await store.publish("quiet")
    ranges = [Range(channel, begun, last.place) for channel in ("flood", "quiet")]
    flood, quiet = (await store.library.read(ranges, 200, 1000)).found
    assert (len(flood.messages), flood.whole) == (199, False)
    assert (len(quiet.messages), quiet.whole) == (1, True)
    flood, quiet = (await store.library.read(ranges, 301, 1000)).found
    assert (len(flood.messages), flood.whole, quiet.whole) == (300, True, True)


async def test_the_last_messages(store: Store) -> None:
    positions = [await store.publish("news", b"%d" % place) for place in range(5)]

    async def last(count: int, until: Place = BEGINNING, size: int = 1000) -> list[bytes]:
        wanted = [Wanted("news", 0, until)]
        (found,) = await store.library.last(wanted, [count], BEGINNING, BEGINNING, 100, size)
        return [kept.message for kept in found.messages]

    assert await last(2) == [b"3", b"4"]
    assert await last(9) == [b"0", b"1", b"2", b"3", b"4"]
    assert await last(2, positions[2].place) == [b"1", b"2"]
    assert await last(9, size=3) == [b"2", b"3", b"4"]
    assert await last(0) == []
    both = [Wanted("never", 0, BEGINNING), Wanted("news", 0, BEGINNING)]
    never, news = await store.library.last(both, [9], BEGINNING, BEGINNING, 1, 9)
    assert never == Newest([], None)
    assert news == Newest([Kept(positions[4], positions[3], b"4")], positions[3].place)


async def test_the_last_messages_of_several_channels_share_the_limits(store: Store) -> None:
    places = [(await store.publish("abc"[place % 3], b"%d" % place)).place for place in range(12)]
    await store.publish("a", b"too new")

    async def last(
        most: int, events: int, size: int, floor: Place = BEGINNING, after: Place = BEGINNING
    ) -> list[tuple[list[int], int | None]]:
        wanted = [Wanted(name, group, places[-1]) for name, group in (("a", 0), ("b", 1), ("c", 1))]
        found = await store.library.last(wanted, [most, most], after, floor, events, size)
        return [
            ([int(kept.message) for kept in each.messages], None if each.left is None else places.index(each.left))
            for each in found
        ]

    assert await last(3, 99, 99) == [([3, 6, 9], None), ([10], None), ([8, 11], None)], "the newest of a group"
    assert await last(9, 4, 99) == [([9], 6), ([10], 7), ([8, 11], 5)], "the newest of all"
    assert await last(9, 99, 5) == [([9], 6), ([10], 7), ([11], 8)], "in bytes"
    assert await last(1, 2, 99) == [([9], None), ([], None), ([11], None)], "nothing more is wanted"
    assert await last(1, 1, 99) == [([], 9), ([], None), ([11], None)]
    assert await last(9, 99, 99, places[8]) == [([9], 6), ([10], 7), ([11], 8)], "the rest is left for later"
    assert await last(9, 99, 99, after=places[8]) == [([9], None), ([10], None), ([11], None)]
    assert await last(9, 0, 0) == [([], 9), ([], 10), ([], 11)], "where they are"


# ---- age


async def test_old_messages_are_trimmed(store: Store) -> None:
    places = [(await store.publish("news")).place for _ in range(250)]
    key = "gateway.stream:news"
    reached = entry_id(places[200])
    now = await store.now()
    await store.redis.zadd("gateway.checkpoints", {reached: now - AGE_MS - 1})
    await store.redis.zadd("gateway.checkpoints", {entry_id(places[240]): now - AGE_MS + MINUTE_MS})
    await store.set_field("step", 0)
    last = await store.publish("news")
    kept = [id_ for id_, _ in await cast("Any", store.redis.xrange(key))]
    assert len(kept) < 251, "whole nodes of a Redis Stream are removed"
    assert reached in kept
    assert await store.field("cut") == reached.decode(), "what is younger by a minute stays"
    assert not await store.whole("news", BEGINNING, last.place)
    assert await store.whole("news", places[200], last.place)


async def test_a_channel_expires_so_long_after_its_newest_message(store: Store) -> None:
    for channel in ("a", "b"):
        await store.publish(channel)
    await store.redis.pexpire("gateway.stream:a", 1000)
    await store.redis.zadd("gateway.ages", {"a": 0})
    await store.publish("a")
    now = await store.now()
    for channel in ("a", "b"):
        assert AGE_MS - MINUTE_MS < await store.redis.pttl(f"gateway.stream:{channel}") <= AGE_MS
        came = await store.redis.zscore("gateway.ages", channel)
        assert came is not None
        assert now - MINUTE_MS < came <= now


@pytest.mark.parametrize("seconds", [0.5, 100.0, 3600.0])
async def test_the_age_is_that_of_the_setting(url: str, store: Store, seconds: float) -> None:
    shorter = Store(url, Settings(durable_age=seconds))
    for _ in range(3):
        position = await shorter.publish("news")
        assert await shorter.whole("news", BEGINNING, position.place)
    assert 0 < await store.redis.pttl("gateway.stream:news") <= seconds * 1000
    step = max(1, seconds * 1000 // 1440)
    now = await store.now()
    assert now - MINUTE_MS <= int(await store.field("step")) * step <= now, "a thousandth of it or so"
    if seconds == 3600:
        assert await store.redis.pttl("gateway.stream:news") > seconds * 1000 - MINUTE_MS
    if seconds < 1:
        await until(_is_gone(store, "gateway.stream:news"), "it expires")
        again = await shorter.publish("news")
        assert not await shorter.whole("news", BEGINNING, again.place), "nothing is believed to be all there was"
        assert await shorter.whole("news", position.place, again.place)
    await shorter.redis.aclose()


def _is_gone(store: Store, key: str) -> Callable[[], Awaitable[bool]]:
    async def gone() -> bool:
        return not await store.redis.exists(key)

    return gone


async def test_checkpoints_are_few_and_harmless_to_lose(store: Store) -> None:
    now = await store.now()
    await store.publish("news")
    for minutes in range(1, 5):
        await store.redis.zadd("gateway.checkpoints", {f"1-{minutes}": now - AGE_MS - minutes * MINUTE_MS})
    await store.redis.zadd("gateway.checkpoints", {"1-9": now - AGE_MS + MINUTE_MS})
    await store.set_field("step", 0)
    await store.publish("news")
    assert await store.field("cut") == "1-1"
    left = await cast("Any", store.redis.zrange("gateway.checkpoints", 0, -1))
    assert left[:2] == [b"1-1", b"1-9"]
    assert 3 <= len(left) <= 4, "one that is too old is enough"
    for _ in range(50):
        await store.publish("news")
    assert await store.redis.zcard("gateway.checkpoints") <= 5, "not one for each message"
    await store.redis.delete("gateway.checkpoints")
    position = await store.publish("news")
    assert await store.whole("news", BEGINNING, position.place)


async def test_no_limit_of_age(url: str, store: Store) -> None:
    endless = Store(url, Settings(durable_age=0))
    position = await endless.publish("news")
    assert await endless.redis.pttl("gateway.stream:news") == -1
    assert not await endless.redis.exists("gateway.ages", "gateway.checkpoints")
    assert await endless.whole("news", BEGINNING, position.place)
    await endless.redis.aclose()


async def test_channels_whose_messages_are_gone_are_pruned(store: Store) -> None:
    begun = await store.tick()
    last = {channel: await store.publish(channel) for channel in ("a", "b", "c")}
    old = await store.now() - AGE_MS - 1
    kept = await store.publish("kept")
    young = await store.publish("young")
    await store.redis.zadd("gateway.ages", {"young": old + MINUTE_MS, **dict.fromkeys(("a", "b", "c", "kept"), old)})
    await store.redis.delete(*[f"gateway.stream:{channel}" for channel in ("a", "b", "c", "young")])
    await store.publish("news")
    await store.publish("news")
    assert await store.field("n:young") == str(young)
    looked_at = await store.redis.zscore("gateway.ages", "kept")
    assert looked_at is not None
    assert looked_at > old, "later again, or it would hide all behind it"
    for channel in "abc":
        assert await store.field(f"n:{channel}") == ""
    assert await store.field("pruned") == f"{last['c'].generation}.{last['c'].number}"
    assert await store.field("n:kept") == str(kept)

    ended = await store.tick()
    assert not await store.whole("a", begun, ended)
    assert not await store.whole("c", begun, ended)
    assert await store.whole("c", last["c"].place, ended)
    assert not await store.whole("a", BEGINNING, ended)
    again = await store.publish("a")
    assert not await store.whole("a", begun, again.place), "what it had before was forgotten"
    assert await store.whole("a", last["c"].place, again.place)


# ---- the previous version side by side


async def test_messages_of_the_previous_version_come_first(store: Store) -> None:
    old = await store.publish_previous("news")
    begun = await store.tick()
    assert begun.generation > old.generation
    new = await store.publish("news")
    found = await store.find("news", BEGINNING, new.place)
    assert [kept.position for kept in found.messages] == [Position(old.generation, 0, old.number), new]
    assert found.messages[0] == Kept(Position(old.generation, 0, old.number), None, b"old")
    assert not found.whole
    assert await store.whole("news", begun, new.place)
    await cast("Any", store.redis.xdel("gateway.stream:news", entry_id(old)))
    assert not await store.whole("news", BEGINNING, new.place)


async def test_a_message_of_the_previous_version_in_between(store: Store) -> None:
    begun = await store.tick()
    first = await store.publish("news")
    old = await store.publish_previous("news")
    assert old == (first.generation, first.number + 1)
    assert not await store.whole("news", begun, old), "the previous version doesn't say what came before"
    last = await store.publish("news")
    assert last.place > old
    found = await store.find("news", begun, last.place)
    assert [kept.message for kept in found.messages] == [b"x", b"old", b"x"]
    assert not found.whole
    assert not await store.whole("news", first.place, last.place)
    assert await store.whole("news", begun, first.place) is False, "the message after the end has no predecessor"
    assert await store.whole("news", old, last.place)
    next_ = await store.publish("news")
    assert await store.whole("news", last.place, next_.place)


@pytest.mark.parametrize("lost", ["message", "stream"])
async def test_a_lost_message_of_the_previous_version_is_noticed(store: Store, lost: str) -> None:
    first = await store.publish("news")
    old = await store.publish_previous("news")
    if lost == "stream":
        await store.redis.delete("gateway.stream:news")
    last = await store.publish("news")
    if lost == "message":
        await cast("Any", store.redis.xdel("gateway.stream:news", entry_id(old)))
    assert not await store.whole("news", first.place, last.place)
    assert await store.whole("news", old, last.place)


async def test_a_lost_message_of_the_previous_version_is_noticed_before_the_next_one(store: Store) -> None:
    first = await store.publish("news")
    old = await store.publish_previous("news")
    await store.redis.delete("gateway.stream:news")
    ended = await store.tick()
    assert not await store.whole("news", first.place, ended)
    assert await store.whole("news", old, ended)


async def test_the_previous_version_does_not_break_other_channels(store: Store) -> None:
    first = await store.publish("news")
    await store.publish_previous("other")
    last = await store.publish("news")
    assert await store.whole("news", BEGINNING, last.place)
    assert await store.whole("news", first.place, last.place)


async def test_the_previous_version_reads_what_this_one_stores(store: Store) -> None:
    await store.publish("news", b"hello")
    ((_, fields),) = await cast("Any", store.redis.execute_command("XRANGE", "gateway.stream:news", "-", "+"))  # type: ignore[no-untyped-call]
    assert next(iter(fields.items())) == (b"d", b"hello"), "it takes the first field for the message"


async def test_both_versions_count_on_from_each_other(store: Store) -> None:
    await store.publish_previous("news")
    async with store.redis.pubsub() as heard:
        await heard.subscribe("news")
        await heard.get_message(timeout=20)
        for place in range(12):
            if place == 6:
                await store.set_field("owner", "another")
            if place % 3 == 2:
                await store.tick()
            await (store.publish_previous("news") if place % 2 else store.publish("news"))
        ids = []
        for _ in range(12):
            message = await heard.get_message(timeout=20)
            assert message is not None
            ms, number = message["data"].removeprefix(b"\x1egateway:").partition(b"\n")[0].split(b"-")
            ids.append(Place(int(ms), int(number)))
    assert all(earlier < later for earlier, later in pairwise(ids))
    birth = await cast("Any", store.redis.hget("gateway.clock", "birth"))
    assert birth == b"%d-0" % ids[-1].generation, "workers of the previous version learn that a generation ended"
    ended = (await store.library.read([], 1, 1)).lineage
    assert ended == [ids[5]], "with the previous version's last number"


# ---- names, bytes, functions


@pytest.mark.parametrize("message", [b"", b"\0\xff\r\n", bytes(range(256)), b"x" * 300_000], ids=len)
async def test_any_bytes_are_kept(store: Store, message: bytes) -> None:
    position = await store.publish("news", message)
    found = await store.library.read([Range("news", BEGINNING, position.place)], 10, 1_000_000)
    assert found.found == [Found(True, [Kept(position, None, message)])]


async def test_the_mark_of_durable_messages_is_rejected(store: Store) -> None:
    with pytest.raises(ResponseError, match="begins with the mark"):
        await store.publish("news", b"\x1egateway:1-1\nforged")


async def test_channels_are_found_by_pattern(store: Store) -> None:
    names = ["news.a", "news.b", "with space", "[x]*?", "ünï", "pruned", "clock"]
    for name in names:
        await store.publish(name)
    assert sorted(await store.library.channels("*")) == sorted(name.encode() for name in names)
    assert sorted(await store.library.channels("news.?")) == [b"news.a", b"news.b"]
    assert await store.library.channels(r"\[x\]\*\?") == [b"[x]*?"]
    assert await store.library.channels("with *") == [b"with space"]
    assert await store.library.channels("none") == []
    for name in names:
        (found,) = await store.library.last([Wanted(name, 0, BEGINNING)], [9], BEGINNING, BEGINNING, 9, 99)
        assert len(found.messages) == 1


async def test_many_channels_are_found(store: Store) -> None:
    await cast("Any", store.redis.hset(POSITIONS, mapping={f"n:c{place}": "1.0.1" for place in range(3000)}))
    assert len(await store.library.channels("c*")) == 3000


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[redis.Redis]:
    """A real Redis; the embedded one's functions can't call INFO."""
    with RedisServer(tmp_path) as server, server.client() as client:
        wait_until(client.ping, "answers")
        yield client


def _libraries(client: redis.Redis) -> list[bytes]:
    listed: list[Any] = client.function_list()
    return sorted(it[b"library_name"] if isinstance(it, dict) else it[it.index(b"library_name") + 1] for it in listed)


def _fcall(client: redis.Redis, keys: int, *args: str) -> Position:
    position = cast("bytes", client.fcall("gateway_publish", keys, *args))
    return Position(*map(int, position.split(b".")))


OTHER = "redis.register_function('gateway_publish', function() return 'other' end)"


async def test_people_publish_with_fcall(functions: redis.Redis) -> None:
    store = Store(f"redis://127.0.0.1:{functions.get_connection_kwargs()['port']}")
    assert await store.functions.install()
    assert await store.functions.install(), "again"
    first = await store.publish("news")
    second = _fcall(functions, 1, "news", "hello")
    functions.flushall()
    third = _fcall(functions, 1, "news", "hello")
    assert second == (first.generation, 0, first.number + 1), "the script and the function are one server"
    assert third.generation > second.generation
    wrongs: list[tuple[int, *tuple[str, ...]]] = [(0, "x"), (1, "a"), (1, "a", "b", "c"), (2, "a", "b", "c")]
    for wrong in wrongs:
        with pytest.raises(ResponseError, match="one channel and one message, such as: FCALL gateway_publish"):
            _fcall(functions, *wrong)
    await store.redis.aclose()


async def test_the_newest_version_of_the_functions_stays(functions: redis.Redis) -> None:
    store = Store(f"redis://127.0.0.1:{functions.get_connection_kwargs()['port']}")
    functions.function_load(f"#!lua name=gateway\n{OTHER}")
    assert await store.functions.install()
    assert _libraries(functions) == [b"gateway_3"], "the previous version's has made room"
    with pytest.raises(ResponseError, match="already exists"):
        functions.function_load(f"#!lua name=gateway\n{OTHER}", replace=True)
    functions.function_flush()
    assert await store.functions.install(), "after FUNCTION FLUSH"
    functions.function_delete("gateway_3")
    functions.function_load(f"#!lua name=gateway_11\n{OTHER}")
    assert await store.functions.install()
    assert _libraries(functions) == [b"gateway_11"]
    functions.function_flush()
    functions.function_load(f"#!lua name=mine\n{OTHER}")
    assert not await store.functions.install(), "somebody else has the name"
    await store.redis.aclose()
