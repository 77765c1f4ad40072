"""What a row is played on: Redis, three workers, nginx, clients, and the publisher."""

import random
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from chaos.account import Account, Channel, Published, reconcile
from chaos.child import Child
from chaos.columns import COLUMNS, DECLARED, GROUPS, Listener, feeds, group, listeners
from chaos.kept import kept
from chaos.promise import Keeps, Promise
from chaos.troubles import Troubles
from chaos.worker import AnyWorker
from gateway.settings import Settings
from testing.nginx import Nginx
from testing.servers import RedisServer
from testing.waiting import wait_until

_FLEETS = 2
_PATIENCE = 40.0
"""Seconds for a state to come about, on a machine that has other things to do."""
_CATCH_UP = 10.0
_GREETING = 1.0
"""Seconds after which a gateway that has greeted nobody doesn't know `gateway.open`."""


@dataclass(frozen=True)
class Plan:
    """How large, and with which differences from the usual.

    Args:
        streams: as many of them in each column.
        rate: messages per second on each shared channel.
        beside: further columns, with so many streams each.
        size: of a message, in bytes.
        small: share of the clients that have small buffers and can be stalled.
        workers: how many, in front of which nginx stands.
        late: how many of these are not started with the others.
        settings: of the workers.
        redis: options of redis-server.
        nginx: texts to replace in nginx.conf.
        tight: workers on unix sockets and small buffers in nginx, so that a client that stops reading is felt soon:
            over TCP on one machine the kernel holds megabytes for each stream.
        forwarded: the workers reach Redis through a forwarder.
        replica: Redis has a replica from the beginning.
        declared: workers are told which channels are durable, where they have a setting for that.
    """

    streams: int = 500
    rate: float = 20.0
    beside: dict[str, int] = field(default_factory=dict)
    size: int = 120
    small: float = 0.0
    workers: int = 3
    late: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    redis: tuple[str, ...] = ()
    nginx: dict[str, str] = field(default_factory=dict)
    tight: bool = False
    forwarded: bool = False
    replica: bool = False
    declared: bool = True


SETTINGS: dict[str, Any] = {
    # Short, so that a row takes seconds; what they are is no part of what is shown.
    "drain_window": 2,
    "shutdown_timeout": 6,
    "retry_min": 0.2,
    "retry_max": 0.6,
    "retry_busy": 1.0,
    "redis_backoff_max": 0.5,
}
_NGINX = {" $1$2$3$4;": " 5$2$3;"}
"""Likewise: clients that nginx turns away because no worker is there come back after half a second."""


class Stage:
    """A context manager. Everything on it is real, listens on 127.0.0.0/8, and is gone afterwards.

    Attributes:
        redis: the Redis that is published to, and that is asked in the end what it has kept.
        replica: of this Redis, if the plan has one.
        redis_address: where the workers see it: an address of their own, so that it can be taken from them alone.
        troubles: times in which workers could not hear Redis.
        astray: a time in which plain messages may come twice or out of order, in `time.monotonic_ns()`.
        clients: by column, what its clients ask for.
        settings: of the workers.
        notes: what else was measured.
        faults: what else was wrong.
        refusals: what Redis said of messages it did not take.
        began: when it was built, by `time.monotonic()`.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.plan = plan
        self.directory = directory
        self.settings = {**SETTINGS, **_known_settings(plan), **plan.settings}
        self.redis_address = f"127.{random.randint(64, 127)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.redis = RedisServer(directory, "--bind", f"127.0.0.1 {self.redis_address}", *plan.redis)
        follow = ("--replicaof", f"127.0.0.1 {self.redis.port}", "--dbfilename", "replica.rdb")
        self.replica = RedisServer(directory, *follow, *plan.redis)
        self.forwarder = Child("chaos.forwarder", directory / "forwarder.log")
        self.fleets = [Child("chaos.fleet", directory / f"fleet-{number}.log") for number in range(_FLEETS)]
        self.publisher = Child("chaos.publisher", directory / "publisher.log")
        self.workers: list[AnyWorker] = []
        self.troubles = Troubles()
        self.astray = (0, 0)
        counts = {**dict.fromkeys(COLUMNS, plan.streams // len(COLUMNS)), **plan.beside}
        self.clients = {column: listeners(column, count) for column, count in counts.items()}
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.refusals: dict[str, int] = {}
        self.began = time.monotonic()
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._opened.enter_context(self.redis)
            port, address = self.redis.port, self.redis_address
            if self.plan.replica:  # early, because a master that gets its first replica takes a new identity
                self._opened.enter_context(self.replica)
                wait_until(self._replica_follows, "the replica follows")
            if self.plan.forwarded:
                self._opened.enter_context(self.forwarder)
                port, address = self.forwarder.ask("listen", target=port, port=0)["port"], "127.0.0.1"
            url = f"redis://{address}:{port}/0"
            # Not in `directory`: the path of a unix socket has at most 107 bytes.
            sockets = Path(self._opened.enter_context(TemporaryDirectory(prefix="gateway-")))
            for number in range(self.plan.workers):
                path = sockets / str(number) if self.plan.tight else None
                self.workers.append(AnyWorker(self.directory, url, path, **self.settings))
            for worker in self.workers:
                self._opened.callback(worker.kill)
            early = self.workers[: self.plan.workers - self.plan.late]
            for worker in early:
                worker.start(wait=False)
            for worker in early:
                worker.wait_ready()
            self.nginx = self._nginx()
            self._opened.enter_context(self.nginx)
            for child in (*self.fleets, self.publisher):
                self._opened.enter_context(child)
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _replica_follows(self) -> bool:
        with self.replica.client() as client:
            replication = client.info("replication")
        return replication["master_link_status"] == "up" and not replication["master_sync_in_progress"]

    def _nginx(self) -> Nginx:
        replacing = {**_NGINX, **self.plan.nginx}
        nginx = Nginx(self.directory, [worker.port for worker in self.workers], replacing=replacing)
        if self.plan.tight:
            parts = self.directory / "deploy" / "nginx"
            upstream = (parts / "upstream.conf").read_text()
            for worker in self.workers:
                upstream = upstream.replace(f"127.0.0.1:{worker.port}", worker.upstream)
            (parts / "upstream.conf").write_text(upstream)
            server = (parts / "server.conf").read_text()
            (parts / "server.conf").write_text(server.replace("backlog=4096;", "backlog=4096 sndbuf=32k;"))
        return nginx

    # The load

    def begin(self) -> None:
        """Open all streams, then publish: whatever is published is due to everybody who listens to it."""
        for column, clients in self.clients.items():
            for number, fleet in enumerate(self.fleets):
                some = [asdict(listener) for listener in clients[number :: len(self.fleets)]]
                fleet.send(
                    "open", host="127.0.0.1", port=self.nginx.port, column=column, listeners=some,
                    small=round(len(some) * self.plan.small),
                )  # fmt: skip
        self.wait_all_open()
        self._wait_greeted()
        self.publisher.send(
            "start", host="127.0.0.1", port=self.redis.port, size=self.plan.size,
            feeds=[asdict(feed) for feed in feeds(self.clients, self.plan.rate)],
        )  # fmt: skip
        self.tell_fleets("begin")

    def _wait_greeted(self) -> None:
        """Until every client knows where its stream begins; by the head of the answer if the gateway doesn't say."""
        began = time.monotonic()
        planned = self._planned

        def told() -> bool:
            greeted = self.total("greeted")
            return greeted == planned or (not greeted and time.monotonic() - began > _GREETING)

        wait_until(told, f"gateway.open on {planned} streams", _PATIENCE)
        if not self.total("greeted"):
            self.notes.append("no gateway.open: everything is counted from the head of the first answer")

    def wake(self, phase: str) -> None:
        """Begin to publish on the channels that were quiet up to this phase."""
        self.publisher.send("wake", phase=phase)

    def victim(self) -> AnyWorker:
        """A worker to hurt; never the first, so that a soak has one to watch."""
        return random.choice(self.workers[1:])

    def cut(self, share: float, *columns: str) -> None:
        """That share of the clients loses its network; of all clients, or of those of some columns."""
        self.tell_fleets("cut", share=share, columns=columns)

    def tell_fleets(self, do: str, **order: Any) -> None:
        for fleet in self.fleets:
            fleet.send(do, **order)

    def play(self, seconds: float) -> None:
        """Let it run: the length of a fault, or of the time before and after it."""
        time.sleep(seconds)

    def wait_all_open(self, but: int = 0) -> None:
        """Until all clients stream, except those that never will and `but` others."""

        def all_open() -> bool:
            clients, opened, closed = (self.total(name) for name in ("clients", "open", "closed"))
            return clients == self._planned and opened + closed >= clients - but

        wait_until(all_open, f"{self._planned} streams open", _PATIENCE)

    def wait_workers(self) -> None:
        """Until all workers say they are ready."""
        wait_until(lambda: all(worker.ready() for worker in self.workers), "all workers ready", _PATIENCE)

    def total(self, name: str) -> int:
        return sum(fleet.status.get(name, 0) for fleet in self.fleets)

    @contextmanager
    def redis_lost(self, groups: frozenset[str] = GROUPS, patience: float = _PATIENCE) -> Iterator[None]:
        """While workers cannot hear Redis: from now until, after the block, all of them do again.

        Redis' own count of listeners is not enough: it counts connections that died without its knowledge. That the
        workers are ready is not enough either: they may not know of it yet.

        Args:
            groups: the channels on which somebody misses something.
            patience: seconds until they must hear Redis again.
        """
        began = time.monotonic_ns()
        try:
            yield
        finally:
            lifted = time.monotonic_ns()
            heard = (0, 0)

            def hears() -> bool:
                nonlocal heard
                heard = tuple(self.publisher.status.get("heard", (0, 0)))
                return heard[0] > lifted and heard[1] >= len(self.workers)

            try:
                wait_until(hears, "Redis has all workers listening", patience)
                self.wait_workers()
                lifted = time.monotonic_ns()
                wait_until(hears, "Redis still has all workers listening", patience)
            finally:
                self.troubles.add(began, heard[0] or time.monotonic_ns(), groups)

    @contextmanager
    def unknown(self, groups: frozenset[str]) -> Iterator[None]:
        """While no worker knows these channels: from now until, after the block, all clients stream again."""
        began = time.monotonic_ns()
        try:
            yield
            self.wait_workers()
            self.wait_all_open()
        finally:
            self.troubles.add(began, time.monotonic_ns(), groups)

    def end(self, promise: Promise) -> dict[str, Account]:
        """Stop publishing, let everybody catch up, and compare."""
        self.publisher.send("finish")
        record = self.publisher.receive()
        until = time.monotonic_ns()
        if record["late"]:
            self.notes.append(f"the publisher was held up {record['late']} times")
        found = self._kept(record["records"]) if promise.keeps is not Keeps.ALL else None
        channels = {
            name: self._channel(name, records, promise, None if found is None else found.get(name, set()))
            for name, records in record["records"].items()
        }
        self._check_refusals(record["records"])
        last = {name: channel.sure[-1].number for name, channel in channels.items() if channel.sure}
        end = time.monotonic() + _CATCH_UP
        while time.monotonic() < end and any(fleet.ask("behind", numbers=last)["count"] for fleet in self.fleets):
            time.sleep(0.1)
        clients = self.report(until)
        self.refusals = record["refusals"]
        accounts: dict[str, Account] = {}
        for column, asked in self.clients.items():
            names = {name for listener in asked for name in (*listener.channels, *listener.matched)}
            accounts[column] = reconcile(
                {name: channels[name] for name in sorted(names)}, [one for one in clients if one["column"] == column]
            )
        return accounts

    def _check_refusals(self, records: dict[str, list[list[int]]]) -> None:
        refused = sum(bool(sent) and sent[-1][1] < 0 for sent in records.values())
        if refused:
            self.faults.append(f"Redis still refused the last message of {refused} channels")

    def _kept(self, records: dict[str, list[list[int]]]) -> dict[str, set[int]]:
        """The messages that Redis still has, by channel."""
        durable = [name for name, sent in records.items() if any(durable for *_, durable in sent)]
        with self.redis.client() as client:
            found = kept(client, durable)
        if not any(found.values()):
            self.faults.append("Redis' streams hold nothing that was published: nobody can tell what was kept")
        return found

    def report(self, until: int = 0) -> list[dict[str, Any]]:
        """What each client wrote down.

        Args:
            until: when publishing ended; 0: it goes on.
        """
        self.tell_fleets("report", until=until)
        return [client for fleet in self.fleets for client in fleet.receive(120)["clients"]]

    @property
    def _planned(self) -> int:
        return sum(map(len, self.clients.values()))

    def _channel(self, name: str, records: list[list[int]], promise: Promise, found: set[int] | None) -> Channel:
        # `found` is what Redis has of it, and None stands for everything it acknowledged.
        sure, unsure, unsure_durable = [], set(), set()
        for number, (sent, answered, durable) in enumerate(records):
            if answered > 0:
                unheard = self.troubles.hit(group(name), sent, answered)
                excused = promise.keeps is Keeps.NOTHING and unheard
                sure.append(
                    Published(
                        number,
                        unheard,
                        sent / 1e9 - self.began,
                        durable=bool(durable),
                        kept=not excused and (found is None or number in found),
                        astray=sent <= self.astray[1] and answered >= self.astray[0],
                    )
                )
            elif answered == 0:
                unsure.add(number)
                if durable:
                    unsure_durable.add(number)
        return Channel(sure, frozenset(unsure), frozenset(unsure_durable), calm=promise.calm_on(group(name)))


def channels_of(clients: Sequence[Listener], groups: Collection[str]) -> list[str]:
    """The channels of these groups that clients name."""
    return sorted({name for one in clients for name in one.channels if group(name) in groups})


def _known_settings(plan: Plan) -> dict[str, Any]:
    """The settings that the columns need, as far as the gateway has them."""
    wanted = {"allowed_patterns": ["team.*"], **({"durable_channels": DECLARED} if plan.declared else {})}
    return {name: value for name, value in wanted.items() if name in Settings.model_fields}
