"""Channel names and patterns, against what Redis itself matches."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from redis.asyncio import Redis

from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.listener import Listener
from fuzz.stage import Stage
from fuzz.target import Target
from testing.http import metrics
from testing.waiting import DEADLINE

_BYTES = [
    b"a", b"b", b"c", b"-", b"]", b"^", b"[", b"*", b"?", b"\\", b".", b"\x80", b"\xff", b"\xc5\xbe", b"\0", b"\n",
    "\u2028".encode(), b" ", b"\xf0\x9f\x98\x80", b"a-c", b"[a-c]", b"[^a]", b"**", b"\\*", b"[b-a]", b"[\\]]", b"[]",
]  # fmt: skip
_END = b"the end"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class NamesAndPatterns(Target):
    """Streams of channels and patterns full of signs that mean something, while names like them are published to;
    each stream must get exactly what Redis itself matches, less what has no clean name.
    """

    name = "names and patterns"
    share = 4
    batch = 20
    settings: ClassVar[Mapping[str, Any]] = {"max_patterns": 1000}

    def make(self, chance: Chance) -> Any:
        pattern = _name(chance, 6).decode(errors="ignore")
        channels = [_name(chance, 4).decode(errors="ignore") for _ in range(chance.one([0, 0, 1, 2]))]
        published = [_name(chance, 5) for _ in range(6)] + [name.encode() for name in channels]
        if chance.perhaps(0.5):
            published.append(re.sub(rb"[*?]", b"a", pattern.encode()))
        return [_clean(pattern) or "a*", [name for name in map(_clean, channels) if name], published]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        before = metrics(stage.worker)["redis_connects_total"]
        async with Redis(port=stage.redis.port) as client:
            failures = [await self._play(stage, client, number, case) for number, case in enumerate(cases)]
        found = [failure for failure in failures if failure is not None]
        if metrics(stage.worker)["redis_connects_total"] != before:
            found.append(Failure(None, "the worker has connected to Redis again: it was out of step"))
        return found

    async def _play(self, stage: Stage, client: Redis, number: int, case: Case) -> Failure | None:
        pattern, channels, published = case.content
        end = f"end.{number}"
        parameters = [("pattern", pattern), *(("channel", name) for name in [*channels, end])]
        async with (
            client.pubsub() as heard,
            Listener(stage.worker.port, parameters) as stream,
        ):
            await heard.psubscribe(pattern.encode())
            await stream.begun()
            for place, name in enumerate(published):
                await client.publish(name, b"%d" % place)
            await client.publish(end, _END)
            matched = await _matched(heard)
            events = await stream.until(b"data: " + _END + b"\n")
        expected = [
            str(place)
            for place, name in enumerate(published)
            if (b"%d" % place in matched or name in [each.encode() for each in channels]) and _is_clean(name)
        ]
        got = [event.data for event in events if event.data != _END.decode() and event.type == "message"]
        self.counts["events"] += len(got)
        return None if got == expected else Failure(case, f"{got} instead of {expected}")


async def _matched(heard: Any) -> set[bytes]:
    """What has come through the pattern: everything before the answer to a ping."""
    matched: set[bytes] = set()
    await heard.ping()
    async with asyncio.timeout(DEADLINE):
        while True:
            message = await heard.get_message(timeout=None)
            if message is None:
                continue
            if message["type"] == "pong":
                return matched
            if message["type"] == "pmessage":
                matched.add(message["data"])


def _name(chance: Chance, most: int) -> bytes:
    return b"".join(chance.one(_BYTES) for _ in range(chance.randint(1, most)))


def _clean(name: str) -> str:
    return _CONTROL.sub("", name)


def _is_clean(name: bytes) -> bool:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    return not _CONTROL.search(text) and not text.startswith("gateway.")
