"""What is exactly at a limit is accepted, and one more is not."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.fanout.budget import Budget
from gateway.fanout.gate import Gate
from gateway.fanout.turned_away import TurnedAway
from gateway.memory.event import MAX_RETRY_MS, Undeliverable, parse
from gateway.memory.place import MAX_PLACE_BYTES
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.web.body import Body, NoRoom
from gateway.web.problem import Problem
from gateway.web.stream_request import QueryRequests, StreamRequest, from_json
from tests.unit.entrance import Entrance, run


def _ask(query: str, last_event_id: str = "", **settings: Any) -> StreamRequest:
    given = Settings.load({"allowed_patterns": "*", **settings})
    headers = [(b"last-event-id", last_event_id.encode())] if last_event_id else []
    return QueryRequests(given).get(query.encode(), None, headers)


def _names(kind: str, count: int) -> str:
    return "&".join(f"{kind}={kind[0]}{number}" for number in range(count))


@pytest.mark.parametrize(
    ("settings", "accepted", "rejected", "named"),
    [
        ({"max_stream_channels": 3}, _names("channel", 3), _names("channel", 4), "max_stream_channels"),
        (
            {"max_stream_channels": 3},
            f"{_names('channel', 2)}&pattern=x&channel=c1",
            f"{_names('channel', 3)}&pattern=x",
            "max_stream_channels",
        ),
        ({"max_stream_patterns": 3}, _names("pattern", 3), _names("pattern", 4), "max_stream_patterns"),
        ({"max_stream_patterns": 0}, "channel=a", "channel=a&pattern=x", "max_stream_patterns"),
        ({"max_channel_bytes": 4}, "channel=abcd", "channel=abcde", "at most 4"),
        ({"max_channel_bytes": 4}, "channel=%C5%BE%C5%BE", "channel=%C5%BE%C5%BEa", "at most 4"),
        ({"max_channel_bytes": 4}, "pattern=abc*", "pattern=abcd*", "at most 4"),
        ({"replay_events": 7}, "channel=a&history=7", "channel=a&history=8", "up to 7"),
        ({"replay_events": 10**9}, "channel=a&history=999999999", "channel=a&history=1000000000", "history="),
        ({}, "channel=a&history=0", "channel=a&history=-1", "history="),
    ],
)
def test_a_request_for_a_stream(settings: dict[str, Any], accepted: str, rejected: str, named: str) -> None:
    _ask(accepted, **settings)
    with pytest.raises(Problem, match=named):
        _ask(rejected, **settings)


@pytest.mark.parametrize("letter", ["x", "ž"])
def test_the_id_a_client_comes_back_with(letter: str) -> None:
    limit = 10 + MAX_PLACE_BYTES
    longest = letter * (limit // len(letter.encode()))
    assert _ask("channel=a", longest, max_id_bytes=10).last_event_id == longest
    assert _ask(f"channel=a&last_event_id={longest}", max_id_bytes=10).last_event_id == longest
    body = b'{"channels":["a"],"last_event_id":"%b"}'
    settings = Settings(max_id_bytes=10)
    assert from_json(settings, b"", body % longest.encode(), []).last_event_id == longest
    refusal = f"longer than {limit} bytes"
    with pytest.raises(Problem, match=refusal):
        _ask("channel=a", longest + "x", max_id_bytes=10)
    with pytest.raises(Problem, match=refusal):
        _ask(f"channel=a&last_event_id={longest}x", max_id_bytes=10)
    with pytest.raises(Problem, match=refusal):
        from_json(settings, b"", body % (longest + "x").encode(), [])


_RETRY = b'{"event":"","data":"","retry":%d}'


@pytest.mark.parametrize(
    ("accepted", "rejected"),
    [
        (b"x" * 100, b"x" * 101),
        ("ž".encode() * 50, "ž".encode() * 50 + b"x"),
        (b'{"event":"abcd","data":""}', b'{"event":"abcde","data":""}'),
        ('{"event":"žž","data":""}'.encode(), '{"event":"žža","data":""}'.encode()),
        (b'{"event":"","data":"","id":"1234"}', b'{"event":"","data":"","id":"12345"}'),
        (b'{"event":"","data":"","retry":0}', b'{"event":"","data":"","retry":-1}'),
        (
            b'{"event":"","data":"","retry":%d}' % MAX_RETRY_MS,
            b'{"event":"","data":"","retry":%d}' % (MAX_RETRY_MS + 1),
        ),
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_a_message(accepted: bytes, rejected: bytes, durable: bool) -> None:
    if durable and b'"id"' in accepted:
        accepted = accepted.replace(b"1234", b"")
    parse(accepted, durable, 100, 4)
    with pytest.raises(Undeliverable):
        parse(rejected, durable, 100, 4)


async def _read(
    metrics: Metrics, pieces: Sequence[bytes], declared: int | None, most: int = 10, together: int = 100
) -> bytes:
    messages = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces)}
        for place, piece in enumerate(pieces, 1)
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    headers = [] if declared is None else [(b"content-length", b"%d" % declared)]
    with Body(together, metrics) as body:
        return await body.read({"headers": headers}, receive, most, "max_request_bytes")


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("pieces", [[b"0123456789"], [b"01234", b"5678", b"9"], [b"0123456789", b""]])
def test_a_body(pieces: list[bytes], declared: bool) -> None:
    metrics = Metrics()
    assert asyncio.run(_read(metrics, pieces, 10 if declared else None)) == b"0123456789"
    assert metrics.body_bytes == 0
    longer = [*pieces, b"x"]
    with pytest.raises(Problem, match="larger than 10 bytes"):
        asyncio.run(_read(metrics, [] if declared else longer, 11 if declared else None))
    assert metrics.body_bytes == metrics.bodies_refused == 0


def test_all_bodies_together() -> None:
    metrics = Metrics()
    metrics.body_bytes = 90
    assert asyncio.run(_read(metrics, [b"01234", b"56789"], None)) == b"0123456789"
    metrics.body_bytes = 91
    with pytest.raises(NoRoom):
        asyncio.run(_read(metrics, [b"01234", b"56789"], None))
    assert (metrics.body_bytes, metrics.bodies_refused) == (91, 1)


def test_streams_of_a_worker() -> None:
    entrance = Entrance(max_streams=2)
    first = entrance.register("a")
    entrance.register("a")
    with pytest.raises(TurnedAway, match="full"):
        entrance.register("a")
    entrance.members.leave(first, "client")
    entrance.register("a")


@pytest.mark.parametrize("rate", [0.5, 1, 4])
def test_new_streams_in_a_second(rate: float) -> None:
    now = 100.0
    budget = Budget(rate, lambda: now)
    most = max(1, int(rate))
    assert [budget.take() for _ in range(most + 1)] == [True] * most + [False]
    now += 1 / rate
    assert [budget.take() for _ in range(2)] == [True, False]
    now += 1000
    assert [budget.take() for _ in range(most + 1)] == [True] * most + [False], "what is not used is not saved"
    assert all(Budget(0, lambda: now).take() for _ in range(1000))


def test_replays_that_are_prepared_and_those_that_wait() -> None:
    async def play() -> None:
        gate = Gate(2, 3, 5.0)
        leave = asyncio.Event()

        async def enter() -> None:
            async with gate.enter():
                await leave.wait()

        tasks = [asyncio.create_task(enter()) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (gate.inside, gate.waiting) == (2, 3)
        assert [task.done() for task in tasks] == [False] * 5 + [True]
        assert isinstance(tasks[5].exception(), TurnedAway)
        tasks[4].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert gate.waiting == 2
        leave.set()
        await asyncio.gather(*tasks[:4])
        assert (gate.inside, gate.waiting) == (0, 0)
        nobody_waits = Gate(1, 0, 5.0)
        async with nobody_waits.enter():
            with pytest.raises(TurnedAway, match="busy"):
                async with nobody_waits.enter():
                    pass
        async with nobody_waits.enter():
            assert nobody_waits.inside == 1

    run(play)
