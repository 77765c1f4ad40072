"""The secret in Redis: which one is in force, who signs with it, and how workers learn of another."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest
import redis
from redis.asyncio import Redis

from gateway.broker.functions import Functions
from gateway.broker.library import BEGINNING, Library
from gateway.broker.secret import NOTICES
from gateway.broker.signature import Signer
from gateway.memory.event import split_durable
from gateway.memory.listening import ServerChanged
from gateway.settings import Settings
from testing.servers import RedisServer

pytestmark = pytest.mark.anyio

OLD, NEW, NEWER = "the-old-secret-of-all", "the-new-secret-of-all", "the-newer-secret-of-all"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Store:
    """What a worker has of Redis, without the link: it hears nothing, so it follows only when it is told."""

    def __init__(self, client: Redis, secret: str, replaces: bool = True) -> None:
        self.library = Library(client, Settings())
        self.signer = Signer()
        self.functions = Functions(client, self.library, self.signer, secret, replaces)
        self.doubts = 0
        self.changes = 0
        self.functions.on_change = self._changed

    def _changed(self) -> None:
        self.changes += 1

    async def tick(self, database: int = 0) -> None:
        await self.library.tick(f"gateway.tick.{database}", BEGINNING, 0)


class Open(Protocol):
    """A worker that has just started with this secret in its settings."""

    async def __call__(self, secret: str = "", database: int = 0, replaces: bool = True) -> Store: ...


class Tapped:
    """What is published in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.psubscribe("*")
        self._pubsub.get_message(timeout=20)

    def next(self, channel: bytes) -> bytes:
        """What was published next on this channel; everything before it on others is left out."""
        while True:
            message = self._pubsub.get_message(timeout=20)
            assert message is not None or self._pubsub.connection is not None
            if message is not None and message["channel"] == channel:
                return bytes(message["data"])

    def close(self) -> None:
        self._pubsub.close()


@pytest.fixture
def tapped(private_redis: RedisServer) -> Iterator[Tapped]:
    with private_redis.client() as client:
        made = Tapped(client)
        yield made
        made.close()


@pytest.fixture
async def open_store(url: str) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_one(secret: str = "", database: int = 0, replaces: bool = True) -> Store:
            client = await stack.enter_async_context(
                Redis.from_url(f"{url.removesuffix('/0')}/{database}", protocol=2)
            )
            store = Store(client, secret, replaces)
            await store.functions.install()
            return store

        yield open_one


def signs_tick(store: Store, payload: bytes, channel: bytes = b"gateway.tick.0") -> bool:
    text, _, signature = payload.rpartition(b" ")
    return store.signer.has_signed(text, signature, channel)


def signs_durable(store: Store, payload: bytes, channel: bytes, database: bytes) -> bool:
    durable, _ = split_durable(payload)
    assert durable is not None
    return store.signer.has_signed(durable.text + b" " + channel, durable.signature, database)


async def test_a_signature_counts_on_its_channel_and_in_its_database(open_store: Open, tapped: Tapped) -> None:
    """A recorded tick of another database had every worker disconnect, and each durable message there once."""
    store = await open_store(OLD, 3)
    await store.library.publish("news", b"1")
    assert signs_durable(store, tapped.next(b"news"), b"news", b""), "no tick has said which database it is"
    await store.tick(3)
    tick = tapped.next(b"gateway.tick.3")
    assert signs_tick(store, tick, b"gateway.tick.3")
    assert not signs_tick(store, tick, b"gateway.tick.0")
    await store.library.publish("news", b"2")
    durable = tapped.next(b"news")
    assert signs_durable(store, durable, b"news", b"3")
    for channel, database in ((b"news", b"0"), (b"news", b""), (b"other", b"3")):
        assert not signs_durable(store, durable, channel, database)


async def test_a_tick_says_again_which_database_it_is(
    open_store: Open, tapped: Tapped, private_redis: RedisServer
) -> None:
    """The data may have been another's: SWAPDB, or a copy."""
    store = await open_store(OLD, 3)
    await store.tick(3)
    with private_redis.client() as client:
        client.swapdb(3, 4)
    other = await open_store(OLD, 4)
    await other.tick(4)
    await other.library.publish("news", b"1")
    assert signs_durable(other, tapped.next(b"news"), b"news", b"4")


async def test_a_worker_that_starts_puts_its_secret_in_force(open_store: Open) -> None:
    generated, beside = await open_store(), await open_store()
    assert generated.signer.secret == beside.signer.secret != b""
    given = await open_store(OLD)
    assert given.signer.secret == OLD.encode()
    assert (await open_store()).signer.secret == OLD.encode(), "whose settings have none takes what is there"
    assert (await open_store(NEW)).signer.secret == NEW.encode()
    assert (await open_store()).signer.secret == NEW.encode()


async def test_a_publisher_replaces_nothing(open_store: Open, private_redis: RedisServer) -> None:
    """`gateway publish --durable` with a setting of long ago had all workers change."""
    first = await open_store(OLD, replaces=False)
    assert first.signer.secret == OLD.encode(), "there was none"
    worker = await open_store(NEW)
    assert (await open_store(OLD, replaces=False)).signer.secret == NEW.encode()
    await worker.functions.install()
    assert worker.changes == 0


async def test_only_its_start_puts_a_workers_secret_in_force(
    open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers with different ones replaced each other's every ten seconds."""
    old = await open_store(OLD)
    new = await open_store(NEW)
    for store in (old, new, old):
        await store.functions.install()
    assert (await open_store()).signer.secret == NEW.encode()
    assert old.signer.secret == OLD.encode(), "not before it is known where in what is heard the new one begins"
    assert (old.changes, new.changes) == (2, 0)
    with caplog.at_level(logging.WARNING):
        old.functions.adopt()
        await old.functions.install()
    assert old.signer.secret == NEW.encode()
    assert [message for message in caplog.messages if "GATEWAY_SECRET" in message] == caplog.messages
    assert len(caplog.messages) == 1
    assert OLD not in caplog.text
    assert NEW not in caplog.text


async def test_everything_behind_the_notice_is_signed_with_the_new_secret(open_store: Open, tapped: Tapped) -> None:
    """Also what is published by a worker that doesn't know of it yet."""
    old = await open_store(OLD)
    await old.tick()
    assert signs_tick(old, tapped.next(b"gateway.tick.0"))
    new = await open_store(NEW)
    notice = tapped.next(NOTICES)
    await old.tick()
    await old.library.publish("news", b"1")
    assert signs_tick(new, tapped.next(b"gateway.tick.0"))
    assert signs_durable(new, tapped.next(b"news"), b"news", b"0")
    assert old.signer.secret == OLD.encode()
    assert await old.functions.follow(notice)
    assert old.signer.secret == NEW.encode()
    assert not old.functions.has_changed


async def test_a_notice_counts_once(open_store: Open, tapped: Tapped) -> None:
    """Whoever may listen can publish it again, also when the same secret is in force again."""
    old = await open_store(OLD)
    await open_store(NEW)
    there = tapped.next(NOTICES)
    assert await old.functions.follow(there)
    assert not await old.functions.follow(there), "it is signed with a secret that is in use no more"
    await open_store(OLD)
    assert await old.functions.follow(tapped.next(NOTICES))
    assert old.signer.secret == OLD.encode()
    assert await old.functions.follow(there)
    assert old.signer.secret == OLD.encode()
    assert not await old.functions.follow(b"forged")


async def test_who_cannot_tell_where_a_secret_began_begins_anew(open_store: Open, tapped: Tapped) -> None:
    """What stands between two notices is signed with a secret that has gone."""
    old = await open_store(OLD)
    await open_store(NEW)
    await open_store(NEWER)
    with pytest.raises(ServerChanged):
        await old.functions.follow(tapped.next(NOTICES))
    assert old.signer.secret == OLD.encode()
    old.functions.adopt()
    assert old.signer.secret == NEWER.encode()


async def test_there_and_back_is_not_the_same(open_store: Open, tapped: Tapped) -> None:
    old = await open_store(OLD)
    await open_store(NEW)
    await open_store(OLD)
    await old.functions.install()
    assert old.changes == 1
    with pytest.raises(ServerChanged):
        await old.functions.follow(tapped.next(NOTICES))


async def test_redis_that_has_lost_the_secret_gets_it_back(open_store: Open, private_redis: RedisServer) -> None:
    workers = [await open_store(), await open_store()]
    secret = workers[0].signer.secret
    await open_store()
    with private_redis.client() as client:
        client.function_flush()
        client.flushall()
    for store in workers:
        await store.functions.install()
        assert store.signer.secret == secret
        assert store.changes == 0
    assert (await open_store()).signer.secret == secret


@pytest.mark.parametrize("url", ["functions"], indirect=True)
async def test_other_settings_do_not_bring_an_old_secret_back(open_store: Open, private_redis: RedisServer) -> None:
    """The library's text differs as well; whoever began later has the right one."""
    old = await open_store(OLD)
    with private_redis.client() as client:
        before = _code(client)
        await open_store(NEW)
        code = _code(client).replace(b"EVENTS, AGE = ", b"EVENTS, AGE = 1, 2 --")
        client.function_load(code, replace=True)
        await old.functions.install()
        assert _code(client) == code
        client.function_flush()
        await old.functions.install()
        assert _code(client) == before, "Redis had none"


@pytest.mark.parametrize("url", ["functions"], indirect=True)
async def test_a_user_who_may_give_no_notice(
    open_store: Open, private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Others notice it when they look."""
    old = await open_store(OLD)
    async with Redis.from_url(private_redis.limited_url(channels=["news"]), protocol=2) as client:
        new = Store(client, NEW)
        assert await new.functions.install()
    assert new.signer.secret == NEW.encode()
    assert "gateway.secret" in caplog.text
    await old.functions.install()
    assert (old.functions.has_changed, old.changes) == (True, 1)


@pytest.mark.parametrize("url", ["functions"], indirect=True)
async def test_a_user_who_may_not_call_functions_runs_scripts(
    open_store: Open, private_redis: RedisServer, tapped: Tapped
) -> None:
    async with Redis.from_url(private_redis.limited_url(without=["fcall"]), protocol=2) as client:
        store = Store(client, OLD)
        assert await store.functions.install()
        await store.tick()
        await store.library.publish("news", b"1")
        assert signs_tick(store, tapped.next(b"gateway.tick.0"))
        assert signs_durable(store, tapped.next(b"news"), b"news", b"0")


@pytest.mark.parametrize("url", ["functions"], indirect=True)
async def test_what_a_function_refuses_is_not_tried_again(open_store: Open, private_redis: RedisServer) -> None:
    """It may have been done in part: the message would be kept twice."""
    await open_store(OLD)
    with private_redis.client() as admin:
        async with Redis.from_url(private_redis.limited_url(channels=["gateway.*"]), protocol=2) as client:
            store = Store(client, OLD)
            await store.functions.install()
            with pytest.raises(redis.exceptions.ResponseError):
                await store.library.publish("news", b"1")
        assert admin.xlen("gateway.stream:news") <= 1


def _code(client: redis.Redis) -> bytes:
    (library,) = client.function_list("gateway_*", withcode=True)
    fields: Any = library if isinstance(library, dict) else dict(zip(library[::2], library[1::2], strict=True))
    return bytes(fields[b"library_code"])
