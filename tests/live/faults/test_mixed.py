"""Faults 1, 2 and 3: streams with plain and durable channels lost events, or had them twice, without any failure."""

import random

import pytest
import redis

from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, plain, wait_functions


def test_a_plain_id_leads_to_what_redis_keeps(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 1: the plain memory no longer reaches back, and Redis was never asked about the durable channel."""
    shared, own = channel + "shared", channel + "own"
    worker = start(history_events=5, durable_channels=own)
    with Client(shared, own) as client, Client(shared, own) as holder:
        client.open(worker)
        holder.open(worker)
        wait_functions(publisher)
        plain(publisher, shared, ["shared 0"])
        assert client.take(1) == ["shared 0"]
        client.leave()
        kept = [f"own {number}" for number in range(58)]
        for number, text in enumerate(kept):
            durable(publisher, own, [text])
            plain(publisher, shared, [f"shared {number + 1}"])
        holder.until("shared 58")
        missed = client.open(worker)
    assert [event for event in missed if event.startswith("own")] == kept
    assert client.gaps == [f"gap {shared} not_kept"]
    assert [event for event in missed if event.startswith("shared")] == [f"shared {at}" for at in range(54, 59)]


@pytest.mark.parametrize("killed", [False, True], ids=["one worker", "all workers"])
def test_durable_events_survive_dead_workers(
    start: Start, publisher: redis.Redis, channel: str, killed: bool
) -> None:
    """Fault 1: 58 events of 60 users were lost with one worker, 837 with all."""
    shared = channel + "shared"
    owns = [f"{channel}-{number}" for number in range(12)]
    settings = {"durable_channels": channel + "-*"}
    dying, other = start(**settings), start(**settings)
    clients = [Client(shared, own) for own in owns]
    for client in clients:
        client.open(dying)
    wait_functions(publisher)
    for number in range(3):
        for own in owns:
            durable(publisher, own, [f"{own} {number}"])
        plain(publisher, shared, [f"shared {number}"])
    for client in clients:
        client.until("shared 2")
    dying.kill()
    if killed:
        other.kill()
    for client in clients:
        client.rest()
    for number in range(3, 8):
        for own in owns:
            durable(publisher, own, [f"{own} {number}"])
    last = start(**settings) if killed else other
    for client, own in zip(clients, owns, strict=True):
        client.open(last)
        durable(publisher, own, [f"{own} end"])
        client.until(f"{own} end")
        client.leave()
        received = [event for event in client.messages if event.startswith(own)]
        assert received == [f"{own} {number}" for number in range(8)] + [f"{own} end"]
        assert client.gaps == [f"gap {shared} not_kept"]


@pytest.mark.parametrize("cut", range(6))
def test_a_replay_that_breaks_off_loses_nothing(start: Start, publisher: redis.Redis, channel: str, cut: int) -> None:
    """Fault 2: the replay was b1 a2 b2 b3 a1, and whoever lost the connection after a2 never got a1."""
    a, b = channel + "a", channel + "b"
    knows_both, knows_b = start(), start()
    wait_functions(publisher)
    with Client(a, b) as client, Client(a, b) as holder, Client(b) as other:
        other.open(knows_b)
        client.open(knows_both)
        holder.open(knows_both)
        durable(publisher, a, ["a0"])
        assert client.take(1) == ["a0"]
        client.leave()
        plain(publisher, a, ["a1"])
        durable(publisher, b, ["b1"])
        durable(publisher, a, ["a2"])
        durable(publisher, b, ["b2", "b3"])
        assert holder.take(6) == ["a0", "a1", "b1", "a2", "b2", "b3"]
        part = client.replay(knows_b, cut)
        for worker in (knows_b, knows_both):
            with Client(a, b) as again:
                rest = again.open(worker, client.last_event_id)
                assert [each for each in part + rest if each[0] == "a"] == ["a1", "a2"]
                assert [each for each in part + rest if each[0] == "b"] == ["b1", "b2", "b3"]
                plain(publisher, b, ["end"])
                assert again.take(1) == ["end"]
                plain(publisher, a, ["over"])
                assert again.take(1) == ["over"]
                assert holder.take(2) == ["end", "over"], (
                    "the other worker has heard it, too, before the next one comes"
                )


def test_healthy_reconnections_neither_lose_nor_repeat(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 3: 8 of 8 in the smallest case, 73 repeated and 136 falsely reported as missing in a larger one."""
    names = [channel + kind for kind in ("plain", "durable", "both")]
    chance = random.Random(9)
    workers = [start(), start()]
    wait_functions(publisher)
    holders = [Client(*names) for _ in workers]
    for holder, worker in zip(holders, workers, strict=True):
        holder.open(worker)
    wanted = [set(chance.sample(names, 2)) for _ in range(6)]
    clients = [Client(*of, patterns=[channel + "p*"] if names[0] in of else []) for of in wanted]
    for client in clients:
        client.open(workers[0])
    sent: list[str] = []
    for _ in range(25):
        for _ in range(chance.randrange(8)):
            name = chance.choice(names)
            text = f"{name} {len(sent)}"
            is_durable = name.endswith("durable") or (name.endswith("both") and chance.random() < 0.5)
            (durable if is_durable else plain)(publisher, name, [text])
            sent.append(text)
        client = chance.choice(clients)
        expected = _expected(sent, wanted[clients.index(client)])
        if chance.random() < 0.5 and len(client.events) < len(expected):
            client.take(chance.randrange(len(expected) - len(client.events)) + 1)
        client.leave()
        client.open(chance.choice(workers))
    for name in names:
        plain(publisher, name, [f"{name} end"])
        sent.append(f"{name} end")
    for client, of in zip(clients, wanted, strict=True):
        expected = _expected(sent, of)
        client.take(len(expected) - len(client.events))
        client.leave()
        for name in of:
            assert [each for each in client.events if each.startswith(name)] == _expected(sent, {name})
        assert client.gaps == []
    for each in [*holders, *clients]:
        each.leave()


def _expected(sent: list[str], names: set[str]) -> list[str]:
    return [text for text in sent if text.rpartition(" ")[0] in names]
