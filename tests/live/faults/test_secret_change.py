"""Workers with another secret start beside the old ones: half of them rejected durable messages, without a gap."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import httpx
import redis

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, finish, plain, wait_functions

_SECRETS = ["the-first-secret-of-all", "the-second-secret-of-all", "the-third-secret-of-all"]
_MANY = 50
_PAUSE = 0.005


class Load:
    """Publishes all the time, on each channel what it is for, and notes what was sent.

    Args:
        server: where.
        channels: of which the names end with what is published there: plain, durable, or both in turns.
        workers: over which durable messages are published, in turns; empty: with FCALL.
    """

    def __init__(self, server: RedisServer, channels: list[str], workers: list[Worker]) -> None:
        self.sent: dict[str, list[str]] = {channel: [] for channel in channels}
        self._client = server.client()
        self._workers = workers
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def wait(self) -> None:
        """Until many more have been sent."""
        until = self._count() + _MANY
        wait_until(lambda: self._count() >= until or not self._thread.is_alive(), "more is published")
        assert self._thread.is_alive(), "publishing has failed"

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def move(self, worker: Worker, leaving: Worker) -> None:
        """Publish over another worker."""
        with self._lock:
            if leaving in self._workers:
                self._workers.remove(leaving)
                self._workers.append(worker)

    def _count(self) -> int:
        return sum(map(len, self.sent.values()))

    def _run(self) -> None:
        with httpx.Client() as web:
            for number in itertools.count():
                if self._over.is_set():
                    break
                for channel, sent in self.sent.items():
                    text = f"{channel} {number}"
                    if channel.endswith("plain") or (channel.endswith("both") and number % 2):
                        self._client.publish(channel, text)
                    else:
                        self._durable(web, channel, text, number)
                    sent.append(text)
                self._over.wait(_PAUSE)

    def _durable(self, web: httpx.Client, channel: str, text: str, number: int) -> None:
        with self._lock:
            if self._workers:
                worker = self._workers[number % len(self._workers)]
                web.post(f"{worker.url}/publish/{channel}?durable=1", content=text).raise_for_status()
            else:
                self._client.fcall("gateway_publish", 1, channel, text)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()


def test_a_rolling_change_of_the_secret_costs_nothing(
    start: Start, private_redis: RedisServer, url: str, channel: str
) -> None:
    """Twice, under load: nothing is lost, comes twice or out of order, there is no gap, and no worker reconnects."""
    channels = [f"{channel}-{kind}" for kind in ("plain", "both", "durable")]
    settings = {"durable_channels": channels[2], "history_events": 10_000, "replay_events": 10_000}
    old = [start(url, secret=_SECRETS[0], **settings) for _ in range(2)]
    over_http = [] if url == private_redis.url else list(old)
    if url == private_redis.url:
        wait_functions(private_redis.client())
    with ExitStack() as stack:
        followed = [*([each] for each in channels), channels]
        clients = [Client(*names) for names in followed * 2]
        clients += [Client(patterns=[f"{channel}-*"]) for _ in range(2)]
        for client in clients:
            stack.enter_context(client)
        for number, client in enumerate(clients):
            client.open(old[number % 2])
        load = stack.enter_context(Load(private_redis, channels, over_http))
        load.wait()
        for secret in _SECRETS[1:]:
            new: list[Worker] = []
            for leaving in old:  # one at a time
                beside = start(url, secret=secret, **settings)
                new.append(beside)
                load.wait()
                for client in clients[::2]:
                    client.open(beside)
                load.wait()
                for client in clients[1::3]:
                    client.open(leaving)
                load.wait()
                load.move(beside, leaving)
                for worker in (*old, *new):
                    if worker.alive:
                        assert metric(worker, "redis_connects_total") == 1
                        assert metric(worker, "refused_messages_total", reason="unsigned") == 0
                        assert metric(worker, "unsigned_messages_total") == 0
                        assert metric(worker, "refused_messages_total", reason="not_durable") == 0
                finish(leaving)
                for client in clients:
                    client.open(beside)
            old = new
        load.wait()
        load.stop()
        for client, names in zip(clients, [*followed * 2, channels, channels], strict=True):
            for name in names:
                if load.sent[name]:
                    client.until(load.sent[name][-1])
            assert client.gaps == []
            assert len(client.events) == sum(len(load.sent[name]) for name in names)
            for name in names:
                assert [each for each in client.events if each.startswith(f"{name} ")] == load.sent[name]


def test_a_worker_that_has_none_of_its_own_follows(start: Start, private_redis: RedisServer, channel: str) -> None:
    """A worker is started with a secret, beside workers that run with the one that was generated."""
    with private_redis.client() as client:
        old = start(private_redis.url)
        wait_functions(client)
        with Client(channel) as listening, Client(channel) as other:
            listening.open(old)
            durable(client, channel, ["1"])
            new = start(private_redis.url, secret=_SECRETS[0])
            durable(client, channel, ["2"])
            other.open(new)
            plain(client, channel, ["3"])
            durable(client, channel, ["4"])
            assert listening.take(4) == ["1", "2", "3", "4"]
            assert other.take(2) == ["3", "4"]
            assert metric(old, "redis_connects_total") == 1


def test_a_worker_that_may_not_hear_the_notice_reconnects(
    start: Start, private_redis: RedisServer, channel: str
) -> None:
    """It finds the new secret when it hears what it can't believe."""
    with private_redis.client() as client:
        may = [f"{channel}*", "gateway.tick.*", "gateway.peers.*", "gateway.worker.*"]
        old = start(private_redis.limited_url(channels=may), secret=_SECRETS[0])
        old.wait_for_output("not allow this user to subscribe to gateway.secret (ACL): when the secret changes")
        with Client(channel) as listening:
            listening.open(old)
            start(private_redis.url, secret=_SECRETS[1])
            wait_until(lambda: metric(old, "redis_connects_total") == 2, "it has the new secret")
            old.wait_ready()
            old.wait_for_output("the secret in Redis is not that of the setting secret")
            durable(client, channel, ["1"])
            assert [each for each in listening.until("1") if not each.startswith("gap")] == ["1"]
            assert not any(secret in old.output for secret in _SECRETS)


@contextmanager
def _database(server: RedisServer, number: int) -> Iterator[tuple[str, redis.Redis]]:
    url = f"{server.url.removesuffix('/0')}/{number}"
    with redis.Redis.from_url(url) as client:
        yield url, client


def test_two_databases_with_two_secrets(start: Start, private_redis: RedisServer, channel: str) -> None:
    """The functions are the server's: both use the secret that came last, and neither loses anything."""
    with ExitStack() as stack:
        databases = [stack.enter_context(_database(private_redis, number)) for number in (0, 1)]
        names = [f"{channel}-{number}" for number in (0, 1)]
        workers: list[Worker] = []
        listening = [stack.enter_context(Client(name)) for name in names]
        sent = itertools.count()
        for (url, _), name, secret, client in zip(databases, names, _SECRETS, listening, strict=False):
            workers.append(start(url, secret=secret, durable_channels=name))
            wait_functions(databases[0][1])
            client.open(workers[-1])
            for (_, redis_client), other, _ in zip(databases, names, workers, strict=False):
                durable(redis_client, other, [f"{next(sent)}" for _ in range(3)])
        assert listening[0].take(6) == ["0", "1", "2", "3", "4", "5"]
        assert listening[1].take(3) == ["6", "7", "8"]
        # One of them again: its own secret is put in force, and the other follows.
        finish(workers[0])
        workers[0] = start(databases[0][0], secret=_SECRETS[0], durable_channels=names[0])
        assert listening[0].open(workers[0]) == []
        for (_, redis_client), name, client in zip(databases, names, listening, strict=True):
            durable(redis_client, name, ["again"])
            assert client.take(1) == ["again"]
        for worker in workers:
            assert metric(worker, "redis_connects_total") == 1
            assert metric(worker, "refused_messages_total", reason="not_durable") == 0
