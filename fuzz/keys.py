"""Keys of the gateway's in Redis with something in them that the gateway has not written."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fuzz.answers import read_answers
from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.connection import Sending, exchange
from fuzz.listener import Listener
from fuzz.stage import Stage
from fuzz.target import Target

_CHANNEL = "fuzz.kept"
_STREAM = f"gateway.stream:{_CHANNEL}".encode()
_POSITIONS = b"gateway.positions"
_KEYS = [_STREAM, _POSITIONS, b"gateway.ages", b"gateway.checkpoints", b"gateway.clock", b"gateway.secret"]
_FIELDS = [
    b"clock", b"generation", b"owner", b"ticked", b"ticked_ms", b"lineage", b"n:fuzz.kept", b"n:fuzz.other",
    b"pruned",
    b"older", b"step", b"cut", b"n:", b"n:\xff",
]  # fmt: skip
_VALUES = [
    b"", b"0", b"1", b"-1", b"x", b"1.5", b"1e30", b"nan", b"inf", b"9" * 40, b"10000000000000.1.1", b"1.1",
    b"1:1,2:2",
    b"x:y", b":", b",", b"\xff\xfe", b"\0", b"10000000000000-1", b"1_000", b" 1", b"\xd9\xa1",
]  # fmt: skip


class KeysInRedis(Target):
    """The gateway's keys with another type or content: hash fields, entries of streams, whole keys; requests that
    read or write them must get an answer that is no 500, and when the keys are gone everything goes on.
    """

    name = "keys in Redis"
    share = 1
    batch = 10

    def make(self, chance: Chance) -> Any:
        match chance.randint(0, 3):
            case 0 | 1:
                changes = [
                    [b"HSET", _POSITIONS, chance.one(_FIELDS), _value(chance)] for _ in range(chance.one([1, 1, 2]))
                ]
            case 2:
                names = [b"d", b"t", b"p", b"d", b"x", b""]
                pairs = [item for _ in range(chance.randint(1, 4)) for item in (chance.one(names), _value(chance))]
                changes = [
                    [b"XADD", _STREAM, chance.one([b"*", b"99999999999999-1", b"18446744073709551615-1"]), *pairs]
                ]
            case _:
                key = chance.one(_KEYS)
                command = chance.one(
                    [
                        [b"SET", key, b"x"],
                        [b"RPUSH", key, b"x"],
                        [b"ZADD", key, b"inf", b"x"],
                        [b"HSET", key, b"x", b"y"],
                    ]
                )
                changes = [[b"DEL", key], command]
        return [changes, chance.one(["history", "resume", "publish"])]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        failures = []
        async with Redis(port=stage.redis.port) as client:
            for case in cases:
                try:
                    failures += await self._play(stage, client, case)
                finally:
                    await client.delete(*_KEYS)
                await _until_it_serves(stage)
        return failures

    async def _play(self, stage: Stage, client: Redis, case: Case) -> list[Failure]:
        changes, request = case.content
        await client.fcall("gateway_publish", 1, _CHANNEL, "kept")
        for change in changes:
            try:
                await client.execute_command(*change)  # type: ignore[no-untyped-call]
            except ResponseError:  # Redis doesn't let it be
                self.counts["refused by Redis"] += 1
        head = {
            "history": f"GET /events?channel={_CHANNEL}&history=5 HTTP/1.1\r\nHost: a\r\n\r\n",
            "resume": f"GET /events?channel={_CHANNEL}&last_event_id=2.1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "publish": f"POST /publish/{_CHANNEL}?durable=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        }[request]
        data = await exchange(stage.worker.port, Sending([head.encode()], quiet=6.0))
        for answer in read_answers(data):
            self.counts[str(answer.status)] += 1
            if answer.status == 500:
                return [Failure(case, f"{answer.body[:300]!r}")]
        return []


async def _until_it_serves(stage: Stage) -> None:
    """The worker may have lost its connection; it has to come back by itself."""
    async with asyncio.timeout(20):
        while True:
            async with Listener(stage.worker.port, [("channel", "fuzz.afterwards")]) as listener:
                try:
                    await listener.begun()
                    return
                except Exception:
                    await asyncio.sleep(0.1)


def _value(chance: Chance) -> bytes:
    return chance.one(_VALUES) if chance.perhaps(0.8) else chance.garbage(4)
