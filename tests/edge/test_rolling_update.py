"""deploy/rolling-update with real containers under load: everybody keeps streaming, and nobody loses an event."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from chaos.account import Channel, Published, reconcile
from chaos.child import Child
from chaos.payload import Payload
from chaos.promise import Promise
from chaos.row import faults_of
from testing.compose import Compose, docker_is_missing
from testing.nginx import REPOSITORY
from testing.process import free_port
from testing.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

CHANNELS = {"plain": "ticker", "durable": "orders"}
CLIENTS = 100
PACE = 0.05
"""Seconds between messages of each kind."""
BACK_AGAIN = 60.0


class Publisher:
    """Publishes numbered messages over HTTP, through nginx, until the block is left.

    Attributes:
        sure: numbers that were acknowledged, by channel.
        trouble: how those were answered.
        unsure: numbers for which there was no answer; over HTTP nobody knows whether they were published.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.next = dict.fromkeys(CHANNELS.values(), 0)
        self.sure: dict[str, list[int]] = {channel: [] for channel in CHANNELS.values()}
        self.unsure: dict[str, set[int]] = {channel: set() for channel in CHANNELS.values()}
        self.trouble: list[str] = []

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._end.wait(PACE):
                for kind, channel in CHANNELS.items():
                    self._publish(client, kind, channel)

    def _publish(self, client: httpx.Client, kind: str, channel: str) -> None:
        number = self.next[channel]
        self.next[channel] += 1
        query = {"durable": "1"} if kind == "durable" else {}
        try:
            answer = client.post(
                f"{self._url}/publish/{channel}",
                params=query,
                content=Payload(channel, number, time.monotonic_ns()).encode(100),
            )
        except httpx.TransportError as error:
            self.trouble.append(f"{kind} {number}: {error!r}")
            answer = None
        if answer is not None and answer.status_code == 200:
            self.sure[channel].append(number)
            return
        if answer is not None:
            self.trouble.append(f"{kind} {number}: {answer.status_code}")
        self.unsure[channel].add(number)


@contextmanager
def running(address: str) -> Iterator[Compose]:
    with Compose({"EDGE_ADDRESS": address}) as compose:
        compose("up", "--build", "--detach", "--wait")
        yield compose
    assert compose.leftovers() == ""


def test_workers_are_replaced_under_load(tmp_path: Path) -> None:
    if reason := docker_is_missing():
        pytest.skip(reason)
    port = free_port()
    with ExitStack() as opened:
        compose = opened.enter_context(running(f"127.0.0.1:{port}"))
        fleet = opened.enter_context(Child("chaos.fleet", tmp_path / "fleet.log"))
        for kind, channel in CHANNELS.items():
            listeners = [{"channels": [channel]}] * (CLIENTS // 2)
            fleet.send("open", host="127.0.0.1", port=port, column=kind, listeners=listeners, small=0)
        wait_until(lambda: fleet.status.get("open") == CLIENTS, f"{CLIENTS} streams", BACK_AGAIN)
        before = compose.containers("worker")
        with Publisher(f"http://127.0.0.1:{port}") as publisher:
            wait_until(lambda: reached(fleet, dict.fromkeys(CHANNELS.values(), 0)), "everybody hears something")
            first = dict(publisher.next)
            fleet.send("begin")
            update(compose, port)
            # Said by the clients, because a stream that is cut between two polls is not seen here.
            wait_until(lambda: fleet.status["open"] == CLIENTS, "all stream again", BACK_AGAIN)
            seen = {channel: numbers[-1] for channel, numbers in publisher.sure.items()}
            wait_until(lambda: reached(fleet, seen), "everybody is up to date", BACK_AGAIN)
        after = compose.containers("worker")
        assert len(after) == len(before)
        assert not set(after) & set(before)
        last = {channel: numbers[-1] for channel, numbers in publisher.sure.items()}
        wait_until(lambda: reached(fleet, last), "everybody has the last event", BACK_AGAIN)
        report = fleet.ask("report", until=0)["clients"]

    accounts = {}
    for kind, channel in CHANNELS.items():
        sure = [Published(number) for number in publisher.sure[channel]]
        published = Channel(sure, frozenset(publisher.unsure[channel]), first=first[channel])
        accounts[kind] = reconcile({channel: published}, [one for one in report if one["column"] == kind])
    faults = faults_of(accounts, Promise())
    assert not faults, "\n".join([*faults, *(f"{kind}: {one}" for kind, one in accounts.items()), *publisher.trouble])
    for account in accounts.values():
        assert (account.clients, account.lost, account.told) == (CLIENTS // 2, 0, 0)
        assert account.published > 100
    # Who was moved was let go, not cut off.
    endings = [cleanly for client in report for _, cleanly in client["endings"]]
    assert len(endings) >= CLIENTS
    assert all(endings)


def update(compose: Compose, port: int) -> None:
    """The script as it stands in the documentation."""
    env = {**os.environ, "COMPOSE_PROJECT_NAME": compose.project, "EDGE_ADDRESS": f"127.0.0.1:{port}"}
    result = subprocess.run(
        [REPOSITORY / "deploy" / "rolling-update"], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr


def reached(fleet: Child, numbers: dict[str, int]) -> bool:
    return bool(fleet.ask("behind", numbers=numbers)["count"] == 0)
