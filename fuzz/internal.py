"""Messages on the gateway's own channels."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis

from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.listener import Listener
from fuzz.stage import Stage
from fuzz.target import Target

_PEERS, _TICKS = b"gateway.peers.0", b"gateway.tick.0"
_CHANNEL = "fuzz.internal"
_KINDS = [
    "hello", "here", "bye", "ask", "stay", "known", "tell", "told", "heard", "did", "missed", "inherit", "inherited",
]  # fmt: skip
_GENERATION = 10**13


class InternalMessages(Target):
    """Messages on the gateway's own channels: unsigned, garbage, and signed with the right secret but malformed or
    hostile, also as answers to what the worker really asks; streams must lose nothing, and nothing may be forged.
    """

    name = "internal messages"
    share = 10
    batch = 100

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0

    def make(self, chance: Chance) -> Any:
        where = chance.weighted({"peers": 4, "own": 4, "ticks": 2, "answer": 3})
        if where == "ticks":
            text = _tick(chance)
        else:
            text = json.dumps(_body(chance) if where == "answer" else _message(chance)).encode()
            if where != "answer" and chance.perhaps(0.2):
                text = chance.mutated(text)
        return [where, chance.weighted({"signed": 8, "unsigned": 1, "bare": 1}), text]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        answers = [case.content[2] for case in cases if case.content[0] == "answer"]
        async with (
            Redis(port=stage.redis.port) as client,
            Listener(stage.worker.port, [("channel", _CHANNEL)]) as listener,
        ):
            id_ = (await listener.begun())[-1].id
            peer = asyncio.create_task(_peer(stage, client, answers))
            asking: list[asyncio.Task[None]] = []
            try:
                for number, case in enumerate(cases):
                    where, form, text = case.content
                    if where != "answer":
                        channel = _PEERS if where == "peers" else _TICKS if where == "ticks" else await _own(client)
                        await client.publish(channel, _in_form(stage, form, channel, text))
                    if where == "answer" or number % 25 == 0:
                        self._asked += 1
                        asking.append(asyncio.create_task(_ask(stage, id_, self._asked)))
                await asyncio.gather(*asking)
                await client.publish(_CHANNEL, "still here")
                heard = [
                    event for event in await listener.until(b"data: still here\n") if event.type != "gateway.open"
                ]
            finally:
                while not peer.done():  # before Python 3.12 redis-py loses a cancellation now and then (bpo-37658)
                    peer.cancel()
                    await asyncio.wait((peer,), timeout=1)
                await asyncio.gather(peer, return_exceptions=True)
        self.counts["played"] += len(cases)
        wrong = [event for event in heard[:-1] if event.type != "gateway.gap"]
        return [Failure(None, f"the stream got {wrong[:3]}")] if wrong else []


async def _ask(stage: Stage, id_: str, number: int) -> None:
    """Come back with an id from before this worker's memory, so that it asks the others.

    To a channel of its own, because what was found out once is not asked again.
    """
    generation = id_.split(".")[1]
    headers = {"Last-Event-ID": f"2.{generation}.1"}
    async with Listener(stage.worker.port, [("channel", f"fuzz.asked-{number}")], headers) as stream:
        await stream.begun()


async def _own(client: Redis) -> bytes:
    """The worker's own channel."""
    channels = cast("list[bytes]", await client.pubsub_channels("gateway.worker.0.*"))
    return next((each for each in channels if not each.endswith(b".fuzz")), b"gateway.worker.0.none")


async def _peer(stage: Stage, client: Redis, answers: list[bytes]) -> None:
    """Another worker that answers with what the cases say."""
    number = 0
    async with client.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(_PEERS, b"gateway.worker.0.fuzz")
        await client.publish(_PEERS, stage.signed(_PEERS, json.dumps(["here", "fuzz", 0, None]).encode()))
        async for message in heard.listen():
            try:
                kind, by, asked, _ = json.loads(message["data"].partition(b" ")[2])
            except (TypeError, ValueError):
                continue
            if by == "fuzz" or kind not in ("ask", "tell", "heard", "stay") or not isinstance(by, str):
                continue
            own = b"gateway.worker.0.%b" % by.encode(errors="replace")
            for _ in range(2):
                body = answers[number % len(answers)] if answers else b"null"
                number += 1
                said = {"tell": "told", "heard": "did"}.get(kind, "known")
                text = b'["%b","fuzz",%d,%b]' % (said.encode(), asked, body)
                await client.publish(own, stage.signed(own, text))
            if kind == "tell":  # else it would be waited for
                text = b'["told","fuzz",%d,[true,[]]]' % asked
                await client.publish(own, stage.signed(own, text))


def _in_form(stage: Stage, form: str, channel: bytes, text: bytes) -> bytes:
    if form == "bare":
        return text
    signature = stage.signer.sign(channel, text) if form == "signed" else b"0" * 20
    return text + b" " + signature if channel == _TICKS else signature + b" " + text


def _message(chance: Chance) -> Any:
    if chance.perhaps(0.05):
        return chance.json()
    by = chance.one(["fuzz", "another", "", "ž", "x" * 3000, "a b\r\n", 1, None])
    message: list[Any] = [
        chance.one(_KINDS) if chance.perhaps(0.95) else chance.json(0),
        by,
        chance.number(),
        _body(chance),
    ]
    if chance.perhaps(0.05):
        message.insert(chance.randint(0, 4), chance.json(1))
    return message


def _position(chance: Chance) -> Any:
    if chance.perhaps(0.04):
        return chance.json(1)
    return [
        chance.one([0, _GENERATION, 10**15, chance.number()]),
        chance.one([0, 1, 5, 1 << 50, chance.number()]),
        chance.one([0, 0, 3, chance.number()]),
        chance.one([0, 1, 2, 1 << 60, chance.number()]),
    ]


def _flat(chance: Chance, *positions: Any) -> list[Any]:
    flat: list[Any] = []
    for each in positions:
        flat += each if isinstance(each, list) else [each]
    if chance.perhaps(0.03):
        flat.append(chance.json(1))
    return flat


def _question(chance: Chance) -> Any:
    name = chance.one([_CHANNEL, _CHANNEL, "fuzz.*", "", "gateway.x", "x" * 300, "\0", 1])
    return _flat(chance, name, chance.one([True, False, False, 1]), _position(chance), _position(chance))


def _kept(chance: Chance) -> Any:
    if chance.perhaps(0.4):  # a hole
        return _flat(chance, _position(chance), _position(chance))
    fields = [
        chance.one([_CHANNEL, "other", "a\nb", 1]), chance.one(["data", "a\nb", "", 1]),
        chance.one([None, "type", "a\ndata: forged\n\n", "gateway.open", 1]),
        chance.one([None, "own", "a\nb", "", 1]),
        chance.one([None, 3000, -1, True, 1.5, 10**15]), chance.one([None, "comment", "a\nb", 1]),
    ]  # fmt: skip
    return _flat(chance, _position(chance), fields)


def _range(chance: Chance, make: Any) -> Any:
    if chance.perhaps(0.1):
        return chance.one([None, None, chance.json(1), 1, "x"])
    kept = chance.several(3, lambda: make(chance)) if chance.perhaps(0.95) else chance.json(1)
    return [*_flat(chance, _position(chance), _position(chance)), kept]


def _hole(chance: Chance) -> Any:
    return (
        _flat(chance, _position(chance), _position(chance))
        if chance.perhaps(0.9)
        else chance.one([1, "x", None, [], {}, chance.json(1)])
    )


def _body(chance: Chance) -> Any:
    """A body as some kind of message has it, or nearly."""
    match chance.one([0, 1, 1, 1, 2, 2, 3, 4, 5]):
        case 0:
            return chance.several(3, lambda: _question(chance))
        case 1:
            return [_range(chance, _hole)]
        case 2:
            told = chance.several(2, lambda: [chance.one([0, 0, 0, 1, -1, "0"]), _range(chance, _kept)], 1)
            return [chance.one([True, True, False, 1, "x"]), told if chance.perhaps(0.95) else chance.json(1)]
        case 3:
            return _flat(chance, _position(chance), _position(chance))
        case 4:
            return chance.one(["fuzz", None, [], [[]], [None], {}, True, [True], "x" * 1000])
        case _:
            return chance.json()


def _tick(chance: Chance) -> bytes:
    """As Redis publishes it, with something that Redis would not say."""
    fields = [
        chance.one([b"3", b"3", b"3", b"3", b"2", b"4", b""]),
        chance.one([b"%d" % _GENERATION, b"0", b"-1", b"x", b"1_0", b"\xd9\xa1", b"9" * 5000, b""]),
        chance.one([b"1", b"0", b"-1", b"x", b"1" * 30, b""]),
        chance.one([b"0123456789abcdef", b"", b"\xff", b"embedded"]),
        chance.one([b"", b"1:1", b"1:1,2:2", b"1", b",", b":", b"x:y", b"1:" + b"9" * 5000, b"1:1," * 100]),
    ]
    if chance.perhaps(0.2):
        fields.insert(chance.randint(0, 5), chance.garbage(3))
    text = b" ".join(fields)
    return chance.mutated(text) if chance.perhaps(0.3) else text
