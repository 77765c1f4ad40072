"""What a row is played on: Redis, three workers, nginx, clients, and the publisher."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from chaos.account import Account, Channel, Published, reconcile
from chaos.child import Child
from chaos.worker import AnyWorker
from testing.nginx import Nginx
from testing.process import Process
from testing.servers import RedisServer
from testing.waiting import wait_until

PLAIN, DURABLE = "plain", "durable"
CHANNELS = {PLAIN: ["ticker"], DURABLE: ["orders", "alerts"]}
"""Durable clients listen to two channels at once: they come back to both with a single id."""

COMMANDS = {PLAIN: ["PUBLISH"], DURABLE: ["FCALL", "gateway_publish", "1"]}

_FLEETS = 2
_PATIENCE = 40.0
"""Seconds for a state to come about, on a machine that has other things to do."""
_CATCH_UP = 15.0


@dataclass(frozen=True)
class Plan:
    """How large, and with which differences from the usual.

    Args:
        streams: half of them listen to plain messages, half to durable ones.
        rate: messages per second, of each kind.
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
    """

    streams: int = 500
    rate: float = 20.0
    size: int = 120
    small: float = 0.0
    workers: int = 3
    late: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    redis: tuple[str, ...] = ()
    nginx: dict[str, str] = field(default_factory=dict)
    tight: bool = False
    forwarded: bool = False


SETTINGS: dict[str, Any] = {
    # Short, so that a row takes seconds; what they are is no part of what is shown.
    "drain_window": 2,
    "shutdown_timeout": 6,
    "retry_min": 0.2,
    "retry_max": 0.6,
    "retry_busy": 1.0,
    "redis_backoff_max": 0.5,
}


class Stage:
    """A context manager. Everything on it is real, listens on 127.0.0.0/8, and is gone afterwards.

    Attributes:
        redis: the Redis that is published to.
        redis_address: where the workers see it: an address of their own, so that it can be taken from them alone.
        unheard: times in which workers could not hear Redis, in `time.monotonic_ns()`.
        settings: of the workers.
        notes: what else was measured.
        faults: what else was wrong.
        refusals: what Redis said of messages it did not take.
        began: when it was built, by `time.monotonic()`.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.plan = plan
        self.directory = directory
        self.settings = {**SETTINGS, **plan.settings}
        self.redis_address = f"127.{random.randint(64, 127)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.redis = RedisServer(directory, "--bind", f"127.0.0.1 {self.redis_address}", *plan.redis)
        self.forwarder = Child("chaos.forwarder", directory / "forwarder.log")
        self.fleets = [Child("chaos.fleet", directory / f"fleet-{number}.log") for number in range(_FLEETS)]
        self.publisher = Child("chaos.publisher", directory / "publisher.log")
        self.workers: list[AnyWorker] = []
        self.unheard: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.refusals: dict[str, int] = {}
        self.began = time.monotonic()
        self._first: dict[str, int] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._opened.enter_context(self.redis)
            port, address = self.redis.port, self.redis_address
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

    def _nginx(self) -> Nginx:
        nginx = Nginx(self.directory, [worker.port for worker in self.workers], replacing=self.plan.nginx)
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
        """Open all streams, publish, and count from where everybody hears everything."""
        for column, channels in CHANNELS.items():
            for fleet in self.fleets:
                count = self.plan.streams // len(CHANNELS) // len(self.fleets)
                fleet.send(
                    "open", host="127.0.0.1", port=self.nginx.port, column=column, channels=channels, count=count,
                    small=round(count * self.plan.small),
                )  # fmt: skip
        self.wait_all_open()
        columns = [
            {"command": COMMANDS[column], "channels": channels, "size": self.plan.size}
            for column, channels in CHANNELS.items()
        ]
        self.publisher.send("start", host="127.0.0.1", port=self.redis.port, rate=self.plan.rate, columns=columns)
        # An id is needed to come back with, so nobody counts before it has had an event.
        wait_until(lambda: min(self._reached().values(), default=-1) >= 0, "every client heard something", _PATIENCE)
        self._first = self.publisher.ask("mark")["next"]
        self.tell_fleets("begin")

    def victim(self) -> AnyWorker:
        """A worker to hurt; never the first, so that a soak has one to watch."""
        return random.choice(self.workers[1:])

    def keep(self, process: Process) -> None:
        """Start something more, and end it with the rest."""
        self._opened.enter_context(process)

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
    def redis_lost(self) -> Iterator[None]:
        """While workers cannot hear Redis: from now until, after the block, all of them do again.

        Redis' own count of listeners is not enough: it counts connections that died without its knowledge. That the
        workers are ready is not enough either: they may not know of it yet.
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
                wait_until(hears, "Redis has all workers listening", _PATIENCE)
                self.wait_workers()
                lifted = time.monotonic_ns()
                wait_until(hears, "Redis still has all workers listening", _PATIENCE)
            finally:
                self.unheard.append((began, heard[0] or time.monotonic_ns()))

    def end(self) -> dict[str, Account]:
        """Stop publishing, let everybody catch up, and compare."""
        self.publisher.send("stop")
        record = self.publisher.receive()
        until = time.monotonic_ns()
        if record["late"]:
            self.notes.append(f"the publisher was held up {record['late']} times")
        channels = {name: self._channel(name, records) for name, records in record["records"].items()}
        last = {name: channel.sure[-1].number for name, channel in channels.items() if channel.sure}
        end = time.monotonic() + _CATCH_UP
        while time.monotonic() < end:
            reached = self._reached()
            if all(reached.get(name, -1) >= number for name, number in last.items()):
                break
            time.sleep(0.05)
        clients = self.report(until)
        self.refusals = record["refusals"]
        return {
            column: reconcile(
                {name: channels[name] for name in names}, [one for one in clients if one["column"] == column]
            )
            for column, names in CHANNELS.items()
        }

    def report(self, until: int = 0) -> list[dict[str, Any]]:
        """What each client wrote down.

        Args:
            until: when publishing ended; 0: it goes on.
        """
        self.tell_fleets("report", until=until)
        return [client for fleet in self.fleets for client in fleet.receive(120)["clients"]]

    @property
    def _planned(self) -> int:
        return self.plan.streams // len(CHANNELS) // len(self.fleets) * len(self.fleets) * len(CHANNELS)

    def _reached(self) -> dict[str, int]:
        """By channel the number all its clients have reached."""
        parts = [fleet.status.get("reached", {}) for fleet in self.fleets]
        names = {name for part in parts for name in part}
        return {name: min(part.get(name, 1 << 60) for part in parts) for name in names}

    def _channel(self, name: str, records: list[list[int]]) -> Channel:
        sure, unsure = [], set()
        for number, (sent, answered, _) in enumerate(records):
            if answered > 0:
                sure.append(Published(number, self._unheard(sent, answered), sent / 1e9 - self.began))
            elif answered == 0:
                unsure.add(number)
        return Channel(sure, frozenset(unsure), self._first.get(name, 0))

    def _unheard(self, sent: int, answered: int) -> bool:
        # Redis published it somewhere between the two.
        return any(sent <= end and answered >= begin for begin, end in self.unheard)
