"""What is refused instead of being kept, and what an error means: nothing was published."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from gateway.broker.embedded import EmbeddedRedis
from gateway.broker.functions import Functions
from gateway.broker.library import Library
from gateway.broker.signature import Signer
from gateway.settings import Settings
from testing.process import free_port
from testing.servers import RedisServer

pytestmark = pytest.mark.anyio

MAX_BYTES = 5000
SETTINGS = Settings(max_payload_bytes=MAX_BYTES)
POSITIONS = "gateway.positions"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Publisher:
    """One of the ways to publish what is kept."""

    def __init__(self, url: str, by_function: bool) -> None:
        self.url = url
        self.by_function = by_function
        self.redis = Redis.from_url(url, protocol=2)
        self.library = Library(self.redis, SETTINGS)

    async def install(self) -> None:
        if self.by_function:
            assert await Functions(self.redis, self.library, Signer(), "").install()

    async def __call__(self, channel: str, message: bytes = b"x") -> str:
        if not self.by_function:
            return await self.library.publish(channel, message)
        position = await self.library.call(channel, message)
        assert position is not None, "there are no functions"
        return position

    async def kept(self) -> set[bytes]:
        """All that Redis keeps."""
        return set(await cast("Any", self.redis.keys("*")))

    async def messages(self, channel: str) -> list[bytes]:
        entries = await cast("Any", self.redis.xrange(f"gateway.stream:{channel}"))
        return [fields[b"d"] for _, fields in entries]


@pytest.fixture(params=["function", "script", "embedded"])
async def publish(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Publisher]:
    with ExitStack() as stack:
        if request.param == "embedded":
            url = stack.enter_context(EmbeddedRedis(free_port())).url
        else:
            url = stack.enter_context(RedisServer(tmp_path)).url
        publisher = Publisher(url, by_function=request.param == "function")
        await publisher.install()
        yield publisher
        await publisher.redis.aclose()


@pytest.mark.parametrize(
    ("channel", "message", "why"),
    [
        ("", b"x", "the channel is empty"),
        ("gateway.", b"x", "begin with 'gateway.'"),
        ("gateway.tick.0", b"x", "begin with 'gateway.'"),
        *((f"news{control}", b"x", "control character") for control in "\x00\n\x1f\x7f\x80\x9f\u2028\u2029"),
        ("news", b"x" * (MAX_BYTES + 1), rf"has {MAX_BYTES + 1} bytes; max_payload_bytes is {MAX_BYTES}"),
        ("news", b"\x1egateway:x", "the mark of a durable one"),
    ],
)
async def test_what_nobody_could_be_sent_is_not_kept(
    publish: Publisher, channel: str, message: bytes, why: str
) -> None:
    with pytest.raises(ResponseError, match=why):
        await publish(channel, message)
    assert await publish.kept() <= {b"gateway.secret"}


@pytest.mark.parametrize(
    "channel", ["gateway", "news.gateway.x", "Gateway.x", " ", "\xa0", "~", "ünï‧\u202a", "日本"]
)
async def test_what_only_looks_like_it_is_kept(publish: Publisher, channel: str) -> None:
    message = b"x" * MAX_BYTES
    await publish(channel, message)
    assert await publish.messages(channel) == [message]


@pytest.mark.parametrize("key", ["gateway.ages", "gateway.checkpoints"])
async def test_a_helper_key_of_somebody_elses_is_not_the_publishers_fault(publish: Publisher, key: str) -> None:
    """It got an error for what had been delivered, and so published it twice."""
    await publish.redis.set(key, "somebody else's")
    async with publish.redis.pubsub(ignore_subscribe_messages=True) as listening:
        await listening.subscribe("news")
        await listening.parse_response()
        first, second = await publish("news", b"1"), await publish("news", b"2")
        for message in (b"1", b"2"):
            _, _, heard = await listening.parse_response()
            assert heard.endswith(b"\n" + message)
    assert first < second
    assert await publish.messages("news") == [b"1", b"2"]
    assert await publish.redis.pttl("gateway.stream:news") > 0, "it ends all the same"
    await publish.redis.delete(key)
    await publish("news", b"3")
    assert await publish.redis.zcard("gateway.ages") == 1


@pytest.mark.parametrize("key", [POSITIONS, "gateway.clock", "gateway.stream:news"])
async def test_an_error_means_that_nothing_was_published(publish: Publisher, key: str) -> None:
    await publish.redis.set(key, "somebody else's")
    async with publish.redis.pubsub(ignore_subscribe_messages=True) as listening:
        await listening.subscribe("news")
        await listening.parse_response()
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await publish("news", b"1")
        await publish.redis.delete(key)
        await publish("news", b"2")
        _, _, heard = await listening.parse_response()
    assert heard.endswith(b"\n2")
    assert await publish.messages("news") == [b"2"]


@pytest.mark.parametrize("by_function", [True, False])
async def test_a_channel_that_the_acl_denies_keeps_nothing(tmp_path: Path, by_function: bool) -> None:
    """Who asked for the channel's history got the message, and nobody else did."""
    with RedisServer(tmp_path) as server:
        publish = Publisher(server.url, by_function)
        await publish.install()
        rules = "on >pw ~gateway.* ~news* &news.public +@all -function|list -function|dump"
        await cast("Any", publish.redis).execute_command("ACL", "SETUSER", "publisher", *rules.split())
        before = await publish.kept()
        limited = Publisher(server.url.replace("redis://", "redis://publisher:pw@"), by_function)
        with pytest.raises(NoPermissionError, match="ACL"):
            await limited("news.private")
        assert await publish.kept() == before
        await limited("news.public")
        assert await publish.messages("news.public") == [b"x"]
        for each in (publish, limited):
            await each.redis.aclose()
