"""Positions in Redis: ticks, durable messages, and reading those back."""

import contextlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.settings import Settings

_SCAN = 1000
"""Fields looked at per step of HSCAN: below a millisecond of Redis' time."""


_STREAM = "gateway.stream:"
"""What the key of a channel's Redis Stream begins with."""
_END = "gateway.end:"
"""Likewise, of what says that the channel is over."""


class Place(NamedTuple):
    """Where a range begins or ends: numbers order what happens within a generation. 0, 0 is before everything."""

    generation: int
    number: int


BEGINNING = Place(0, 0)


class Position(NamedTuple):
    """Of a durable message: its generation, the newest tick before it (0: none in this generation), its number."""

    generation: int
    tick: int
    number: int

    @property
    def place(self) -> Place:
        return Place(self.generation, self.number)

    def __str__(self) -> str:
        return f"{self.generation}.{self.tick}.{self.number}"


class Kept(NamedTuple):
    """A durable message as Redis keeps it.

    `prior` is the position of the channel's previous durable message. None: none is known, or this is a message of
    the previous version of the gateway, whose position has the tick 0. The number 0 stands for "something before
    this generation".
    """

    position: Position
    prior: Position | None
    message: bytes


class TickReply(NamedTuple):
    """The generation, and the number of its newest tick; 0 if there is none yet.

    `wait_ms` is 0 if the tick that is needed is on its way; otherwise how many ms to wait before asking again.
    """

    generation: int
    number: int
    wait_ms: int


class Range(NamedTuple):
    """What is wanted of a channel: after `after`, up to and including `until`."""

    channel: str
    after: Place
    until: Place


class Found(NamedTuple):
    """A channel's messages in a range, oldest first; whether that is all; whether a limit cut some off."""

    whole: bool
    messages: list[Kept]
    cut: bool = False


class Wanted(NamedTuple):
    """A channel whose newest messages are wanted: up to and including `until` (BEGINNING: no limit), in its group."""

    channel: str
    group: int
    until: Place


class Newest(NamedTuple):
    """A channel's newest messages, oldest first, and the place of the next one, which is there and was left."""

    messages: list[Kept]
    left: Place | None


class Reading(NamedTuple):
    """What was found in each range, and the history it belongs to.

    `lineage` names the ended generations, oldest first, each with the last number that belongs to this history.
    """

    generation: int
    lineage: list[Place]
    found: list[Found]


class _Strange(ResponseError):
    """A key holds what the gateway has not written, and with that can't work; as if Redis had refused."""

    def __init__(self, key: str, answer: object) -> None:
        super().__init__(f"{key} holds what the gateway has not written: {answer!r:.200}")


class Library:
    """The functions of library.lua, called as scripts: those work on every Redis from 6.2 on.

    Where Redis has Functions (7.0), the same text is loaded as one: `redis-cli FCALL gateway_publish 1 news hello`.
    Channels are Redis' own names, with the prefix. All methods raise redis.exceptions.RedisError when Redis
    can't be reached or refuses (out of memory, read-only replica, too few replicas, ACL).

    What is signed is asked of the function, if there is one: it signs with the secret in force, which this worker may
    not know yet.

    Args:
        redis: a client of the gateway's database that doesn't decode responses.
        settings: how much is kept.

    Attributes:
        has_functions: whether Redis has them, and signs.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.has_functions = False
        self._redis = redis
        source = files(__package__).joinpath("library.lua").read_text()
        source = source.replace("@EVENTS@", str(settings.durable_events))
        source = source.replace("@AGE_MS@", str(int(settings.durable_age * 1000)))
        source = source.replace("@END_AGE_MS@", str(int(settings.end_age * 1000)))
        self._source = source.replace("@MAX_BYTES@", str(settings.max_payload_bytes))
        self._scripts: dict[str, Any] = {}
        self.use(b"")

    def code(self, secret: bytes, key: str = "") -> str:
        """The text of the functions.

        Args:
            secret: with which they sign; empty: they don't.
            key: in which a newer secret can be; empty: none.
        """
        return self._source.replace("@SECRET_KEY@", key).replace("@SECRET@", secret.decode())

    def use(self, secret: bytes, key: str = "") -> None:
        """Have what is published from now on signed with this secret, or with that in the key, if there is one."""
        code = self.code(secret, key)
        for name in ("tick", "publish", "finish", "read", "last"):
            self._scripts[name] = self._redis.register_script(f"{code}\nreturn {name}(KEYS, ARGV)")

    async def tick(self, channel: str, seen: Place, spacing_ms: int) -> TickReply:
        """Have Redis publish a tick, unless one that the caller hasn't heard is on its way.

        Args:
            channel: where ticks are published.
            seen: the newest tick heard on the present connection; BEGINNING if none.
            spacing_ms: least time between two ticks.
        """
        arguments = [channel, *seen, spacing_ms]
        reply = await self._function("tick", [], arguments) if self.has_functions else None
        if reply is None:
            reply = await self._scripts["tick"](keys=[], args=arguments)
        try:
            return TickReply(*map(int, reply))
        except (TypeError, ValueError):
            raise _Strange("gateway.positions", reply) from None

    async def newest(self) -> Place:
        """The newest tick; BEGINNING if there is none yet, or nobody can say (ACL; a key of somebody else's)."""
        try:
            fields = await cast("Any", self._redis.hmget("gateway.positions", ["generation", "ticked"]))
            return Place(*(int(field or 0) for field in fields))
        except (ResponseError, ValueError):
            return BEGINNING

    async def publish(self, channel: str, message: bytes) -> str:
        """Publish a message that is kept.

        Returns:
            Its position, "generation.tick.number".
        """
        if self.has_functions and (called := await self.call(channel, message)) is not None:
            return called
        position: bytes = await self._scripts["publish"](keys=[channel], args=[message])
        return position.decode()

    async def call(self, channel: str, message: bytes) -> str | None:
        """Publish as FCALL does: with the secret that is in Redis, which whoever publishes need not know.

        Returns:
            The message's position; None if the functions are not there.
        """
        position: bytes | None = await self._function("publish", [channel], [message])
        return None if position is None else position.decode()

    async def end(self, channel: str) -> str:
        """Publish that a channel is over, until something else is published on it; once.

        Returns:
            The position of that message, "generation.tick.number".
        """
        if self.has_functions and (called := await self.call_end(channel)) is not None:
            return called
        position: bytes = await self._scripts["finish"](keys=[channel], args=[])
        return position.decode()

    async def call_end(self, channel: str) -> str | None:
        """The same as FCALL does it; None if the functions are not there."""
        position: bytes | None = await self._function("end", [channel], [])
        return None if position is None else position.decode()

    async def ended(self, channels: Sequence[str]) -> list[bool]:
        """Which of these channels are over."""
        found = await cast("Any", self._redis.mget([f"{_END}{channel}" for channel in channels]))
        return [each is not None for each in found]

    async def _function(self, name: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """The answer of a function in Redis; None if it isn't there, or this user may not call it."""
        try:
            return await cast("Any", self._redis.fcall(f"gateway_{name}", len(keys), *keys, *arguments))
        except ResponseError as error:
            said = str(error).lower()
            # Nothing has been done. Whatever else is refused may have been done in part.
            if any(each in said for each in ("function not found", "unknown command", "'fcall' command")):
                return None
            raise

    async def read(self, ranges: Sequence[Range], max_events: int, max_bytes: int) -> Reading:
        """Durable messages in ranges of several channels.

        Args:
            ranges: of which channels, from where to where.
            max_events: limit for all of them together; the newest are kept.
            max_bytes: limit of their messages' size, likewise; one message always fits.
        """
        limits = [place for range_ in ranges for place in (*range_.after, *range_.until)]
        channels = [range_.channel for range_ in ranges]
        arguments = [max_events, max_bytes, *limits]
        generation, lineage, *found = await self._scripts["read"](keys=channels, args=arguments)
        try:
            places = _lineage(lineage)
        except (AttributeError, ValueError):
            raise _Strange("gateway.positions", lineage) from None
        return Reading(generation, places, [Found(whole == 1, _kept(list_), whole < 0) for whole, list_ in found])

    async def last(
        self,
        wanted: Sequence[Wanted],
        counts: Sequence[int],
        after: Place,
        floor: Place,
        max_events: int,
        max_bytes: int,
    ) -> list[Newest]:
        """The newest durable messages of several channels, oldest first.

        Args:
            wanted: of which channels.
            counts: of each group of channels, how many at most.
            after: newer than this; BEGINNING: no limit.
            floor: what isn't newer than this is left for later.
            max_events: limit for all of them together; the newest are kept.
            max_bytes: limit of their messages' size, likewise; one message always fits.
        """
        of_channels = [item for each in wanted for item in (each.group + 1, *each.until)]
        arguments = [max_events, max_bytes, *after, *floor, *of_channels, *counts]
        answer = await self._scripts["last"](keys=[each.channel for each in wanted], args=arguments)
        return [Newest(_kept(list_), _place(left) if left else None) for left, list_ in answer]

    async def channels(self, glob: str) -> list[bytes]:
        """Channels with durable messages whose name matches a Redis glob, in no order."""
        names: set[bytes] = set()
        cursor = 0
        while True:
            step = self._redis.hscan("gateway.positions", cursor, f"n:{glob}", _SCAN)
            cursor, fields = cast("tuple[int, dict[bytes, bytes]]", await cast("Any", step))
            names.update(name.removeprefix(b"n:") for name in fields)
            if not cursor:
                break
        # The previous version notes no channels; while its workers publish beside this one's, all keys are looked at.
        if await cast("Any", self._redis.hget("gateway.positions", "older")) not in (None, b"0"):
            async for key in self._redis.scan_iter(f"{_STREAM}{glob}", _SCAN):
                names.add(key.removeprefix(_STREAM.encode()))
        return list(names)


def _lineage(text: bytes) -> list[Place]:
    ended = (item.partition(":") for item in text.decode().split(",") if item)
    return [Place(int(generation), int(number)) for generation, _, number in ended]


def _place(id_: bytes) -> Place:
    generation, number = id_.split(b"-")
    return Place(int(generation), int(number))


def _position(text: bytes) -> Position | None:
    return Position(*map(int, text.split(b"."))) if text else None


def _kept(entries: Sequence[bytes]) -> list[Kept]:
    kept = []
    for place in range(0, len(entries), 4):
        id_, tick, prior, message = entries[place : place + 4]
        generation, number = _place(id_)
        with contextlib.suppress(TypeError, ValueError):  # somebody else's entry costs none of ours
            kept.append(Kept(Position(generation, int(tick), number), _position(prior), message))
    return kept
