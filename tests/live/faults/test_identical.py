"""Fault 4: events were told apart by their payloads, so identical ones got lost or came twice."""

import signal
import threading

import pytest
import redis

from testing.http import metric
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import plain

_COUNT = 6000


@pytest.mark.parametrize("joint", [False, True], ids=["one channel", "two channels"])
def test_clients_that_move_among_identical_messages(
    start: Start, publisher: redis.Redis, channel: str, joint: bool
) -> None:
    """Each silently missed 21 of 6,000."""
    names = [channel, channel + "other"] if joint else [channel]
    workers = [start(queue_events=20_000, history_events=20_000, history_bytes=8_000_000) for _ in range(2)]
    holders = [Client(*names) for _ in workers]
    for holder, worker in zip(holders, workers, strict=True):
        holder.open(worker)
    clients = [Client(*names) for _ in range(4)]
    for client in clients:
        client.open(workers[0])

    def publish() -> None:
        for _ in range(_COUNT // 100):
            with publisher.pipeline(transaction=False) as pipeline:
                for at in range(100):
                    pipeline.publish(names[at % len(names)], "same")
                pipeline.execute()

    publishing = threading.Thread(target=publish)
    publishing.start()
    turn = 0
    while publishing.is_alive():
        turn += 1
        for at, client in enumerate(clients):
            client.open(workers[(turn + at) % 2])
            client.take(1 if len(client.events) < _COUNT else 0)
    publishing.join()
    plain(publisher, channel, ["end"])
    for each in [*clients, *holders]:
        each.until("end")
        each.leave()
        assert len(each.events) == _COUNT + 1
        assert each.gaps == []


def test_a_worker_that_stood_still(start: Start, publisher: redis.Redis, channel: str) -> None:
    """With 0.4 s of it, 7 of 12 clients got duplicates when they moved away and back."""
    shared, own = channel + "shared", channel + "own"
    stalled, other = start(), start()
    with Client(shared, own) as holder:
        holder.open(other)
        clients = [Client(shared, own) for _ in range(12)]
        for client in clients:
            client.open(stalled)
        sent = 0

        def publish(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                plain(publisher, own if sent % 3 == 2 else shared, ["same"])
                sent += 1

        publish(4)
        for client in clients:
            client.take(4)
        heard = metric(other, "messages_total")
        stalled.send_signal(signal.SIGSTOP)
        try:
            publish(4)
            wait_until(lambda: metric(other, "messages_total") >= heard + 4, "the other worker hears it")
            for client in clients:
                assert client.open(other) == ["same"] * 4
            publish(4)
            for client in clients[::2]:
                client.take(3)
        finally:
            stalled.send_signal(signal.SIGCONT)
        for client in clients:
            client.open(stalled)
        publish(2)
        plain(publisher, shared, ["end"])
        for client in clients:
            client.until("end")
            client.leave()
            assert client.events == ["same"] * sent + ["end"]
