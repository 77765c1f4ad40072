"""Payloads that are published in Redis while streams listen."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from redis.asyncio import Redis

from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.contract import DURABLE_MARK, MAX_PAYLOAD_BYTES, Delivered, Rejected, is_id_with, outcome
from fuzz.listener import Listener
from fuzz.payloads import payload
from fuzz.stage import Stage
from fuzz.target import Target
from testing.http import metrics
from testing.stream import Received

_CHANNEL = "fuzz.published"
_OTHER = "fuzz.other"
_LAST = "the last of these"
_SINGLE: tuple[list[tuple[str, str]], dict[str, str]] = ([("channel", _CHANNEL)], {})
_LISTENERS: dict[str, tuple[list[tuple[str, str]], dict[str, str]]] = {
    "gzip": ([("channel", _CHANNEL)], {"Accept-Encoding": "gzip"}),
    "named": ([("channel", _CHANNEL), ("events", "channel")], {}),
    "joint": ([("channel", _CHANNEL), ("channel", _OTHER)], {}),
    "pattern": ([("pattern", "fuzz.pub*")], {}),
    "both": ([("pattern", "fuzz.*"), ("channel", _CHANNEL)], {"Accept-Encoding": "gzip"}),
    "single": _SINGLE,
}


class PublishedPayloads(Target):
    """Payloads published in Redis: text, envelopes and what is nearly one, forged marks and fields; each of six kinds
    of streams must get exactly what the contract says, read by a parser written from the HTML standard, and a client
    that comes back the same.
    """

    name = "published payloads"
    share = 52
    settings: ClassVar[Mapping[str, Any]] = {
        "history_bytes": 1 << 26,
        "replay_bytes": 1 << 26,
        "queue_bytes": 1 << 27,
        "max_payload_bytes": MAX_PAYLOAD_BYTES,
    }

    def make(self, chance: Chance) -> Any:
        return [payload(chance), chance.perhaps(0.15)]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        expected = [_expected(*case.content) for case in cases]
        before = metrics(stage.worker)
        async with AsyncExitStack() as stack, Redis(port=stage.redis.port) as client:
            listeners = {name: Listener(stage.worker.port, *how) for name, how in _LISTENERS.items()}
            for listener in listeners.values():
                begun = (await (await stack.enter_async_context(listener)).begun())[-1].id
            for case in cases:
                content, durable = case.content
                if not durable:
                    await client.publish(_CHANNEL, content)
                elif not _is_refused(content):
                    await client.fcall("gateway_publish", 1, _CHANNEL, content)
            await client.publish(_CHANNEL, _LAST)
            heard = {name: await listener.until(_LAST.encode()) for name, listener in listeners.items()}
            again = Listener(stage.worker.port, _SINGLE[0], {"Last-Event-ID": begun})
            heard["resumed"] = (await (await stack.enter_async_context(again)).begun())[:-1]
        for name, events in heard.items():
            if (failure := _difference(name, cases, expected, events)) is not None:
                return [failure]
        return self._count(stage, cases, expected, before)

    def _count(
        self,
        stage: Stage,
        cases: Sequence[Case],
        expected: Sequence[Delivered | Rejected],
        before: dict[str, float],
    ) -> list[Failure]:
        rejected = Counter(each.reason for each in expected if isinstance(each, Rejected))
        self.counts["delivered"] += len(cases) - rejected.total()
        self.counts["rejected"] += rejected.total()
        now = metrics(stage.worker)
        for reason, count in rejected.items():
            if not reason:
                continue
            name = f'refused_messages_total{{reason="{reason}"}}'
            if (counted := now.get(name, 0) - before.get(name, 0)) != count:
                return [Failure(None, f"{count} messages are {reason}, and {counted:.0f} were counted")]
        return []


def _is_refused(content: bytes) -> bool:
    """Whether the function answers an error."""
    return content.startswith(DURABLE_MARK) or len(content) > MAX_PAYLOAD_BYTES


def _expected(content: bytes, durable: bool) -> Delivered | Rejected:
    if not durable:
        return outcome(content)
    if _is_refused(content):
        return Rejected("")  # nobody hears of it
    told = outcome(content)
    if isinstance(told, Delivered) and told.own_id:
        return Rejected("bad_envelope")  # its position is its id
    return told


def _difference(
    name: str, cases: Sequence[Case], expected: Sequence[Delivered | Rejected], events: Sequence[Received]
) -> Failure | None:
    """What a stream has got that it should not have, or otherwise."""
    due = [(case, each) for case, each in zip(cases, expected, strict=True) if isinstance(each, Delivered)]
    default = _CHANNEL if name == "named" else "message"
    for (case, each), event in zip(due, events, strict=False):
        if not _is_same(each, event, default):
            return Failure(case, f"{name}: {event!r:.300} instead of {each!r:.300}")
    if len(events) != len(due) + 1 or events[-1].data != _LAST:
        return Failure(None, f"{name}: {len(events)} events instead of {len(due) + 1}, the last {events[-1:]!r:.300}")
    return None


def _is_same(each: Delivered, event: Received, default: str) -> bool:
    if event.type != (each.type or default) or not is_id_with(event.id, each.own_id):
        return False
    if not each.is_json:
        return bool(event.data == each.data)
    try:
        return bool(json.loads(event.data) == each.data) and "\n" not in event.data
    except ValueError:
        return False
