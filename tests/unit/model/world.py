"""The simulated world: one Redis, or what became of it, three workers, and clients; faults; and what must hold."""

import copy
import random
from collections import Counter

from gateway.memory.place import Place
from gateway.memory.position import ZERO, Position
from gateway.settings import Settings
from tests.unit.model.client import Client
from tests.unit.model.names import CHANNELS, NAMES
from tests.unit.model.server import Connection, Counters, Data, Logged, Server
from tests.unit.model.worker import Worker

KINDS = ("calm", "cuts", "storm", "small", "none", "refusals")
"""`calm`: clients move and change their topics, workers lag and are replaced as planned. `cuts`: connections are lost
and workers killed, and one worker that hears everything isn't touched. `storm`: everything. `small`: likewise, with
rings that hold little. `none`: likewise, and nothing is kept beside what Redis keeps. `refusals`: likewise, and Redis
refuses to count now and then."""


class World:
    """Everything there is.

    Args:
        rng: what decides; the same one plays the same schedule.
        kind: one of `KINDS`.
        spacing: least time between two ticks; one step takes 1.
        events: what a ring holds.
        linger: for how long topics without listeners stay subscribed.
    """

    def __init__(self, rng: random.Random, kind: str, spacing: int, events: int, linger: float) -> None:
        self.rng = rng
        self.kind = kind
        self.stormy = kind not in ("calm", "cuts")
        self.counters = Counters(rng, spacing)
        self.settings = Settings(history_events=events, ping_interval=0, max_age=0, linger=linger, history_age=1e9)
        self.old: Server | None = None
        self.primary = Server(self.counters, Data())
        self.saved = Data()
        self.leaving: list[tuple[Worker, int]] = []
        self.workers: list[Worker] = []
        self.workers = [Worker(self, self.settings) for _ in range(3)]
        if kind == "cuts":
            for name in NAMES:
                self.workers[0].topics.want(name, name not in CHANNELS)
            while not all(topic.heard for topic in self.workers[0].topics):
                self.counters.now += 1
                self.work(self.workers[0])
                self.workers[0].read(1)
        proofs = ["", "", "", "", "p" * 22, "q" * 22]
        self.clients = [Client(self.choose(), self.counters.log, proof) for proof in proofs]

    @property
    def time(self) -> int:
        return self.counters.now

    def clock(self) -> float:
        return float(self.counters.now)

    def reach(self) -> Server:
        """Where a new connection leads to."""
        if self.old is not None and self.old.replica_of is None and self.rng.random() < 0.4:
            return self.old
        return self.primary

    def is_reachable(self, server: Server) -> bool:
        return server.alive and server in (self.old, self.primary, *self.primary.replicas)

    def worker_of(self, connection: Connection) -> Worker | None:
        return next((each for each in self.workers if each.connection is connection), None)

    def choose(self) -> list[str]:
        return sorted(self.rng.sample(NAMES, self.rng.randint(1, 3)))

    # -- what happens

    def publish(
        self, channel: str, durable: bool, own: bool = False, garbage: bool = False, old: bool = False
    ) -> None:
        server = self.old if old and self.old is not None else self.primary
        plain = not durable
        own_id = f"own-{len(self.counters.log)}" if own and plain else None
        server.publish(channel, durable, own_id, garbage and plain)

    def tick(self, old: bool = False, force: bool = False) -> None:
        """Some worker elsewhere requests a tick."""
        server = self.old if old and self.old is not None else self.primary
        if not server.refuses:
            server.tick(None if force or not server.era[1] else server.era)

    def come(self, client: Client, worker: Worker, history: int = 0) -> None:
        client.leave()
        client.worker = worker
        client.subscriber = worker.come(client, history if client.last_id is None else 0)

    def work(self, worker: Worker, share: float = 0.7, impatient: bool = False) -> None:
        """Let a worker do what it does in its own time."""
        worker.reconcile()
        worker.processes.run(self.rng, share, impatient)

    def staying(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.leaving]

    def retire(self) -> None:
        """A planned replacement: another starts, the clients move, the old one exits once what it knew is known."""
        leaver = self.workers[-1]
        if leaver.leaving:
            return
        heir = Worker(self, self.settings)
        self.workers.insert(1, heir)
        leaver.hand_over(heir)
        self.leaving.append((leaver, 0))
        for client in self.clients:
            if client.worker is leaver:
                leaver.close(client)
                if client.subscriber is not None and client.subscriber.closed is None:
                    self.come(client, self.rng.choice(self.staying()))

    def exits(self) -> None:
        """Let those exit who have handed over and have read a tick that came after everything they were asked."""
        for leaver, last in list(self.leaving):
            if not leaver.handed_over:
                continue
            if not last:
                self.primary.tick(None)
                self.leaving.remove((leaver, last))
                self.leaving.append((leaver, self.primary.data.ticked))
            elif leaver.listening.era is not None and leaver.listening.era[1] >= last:
                self.leaving.remove((leaver, last))
                self.kill(leaver)

    def kill(self, worker: Worker) -> None:
        worker.gone = True
        worker.connection.close()
        self.workers.remove(worker)
        for client in self.clients:
            if client.worker is worker and client.live:
                self.come(client, self.rng.choice(self.staying()))

    def die(self, index: int) -> None:
        """A worker dies, and another starts."""
        self.workers.append(Worker(self, self.settings))
        self.kill(self.workers[index])

    def all_die(self) -> None:
        dead = list(self.workers)
        self.workers += [Worker(self, self.settings) for _ in range(3)]
        for worker in dead:
            worker.leaving = True
        for worker in dead:
            self.kill(worker)
        self.leaving.clear()

    def save(self) -> None:
        self.saved = copy.deepcopy(self.primary.data)

    def restart(self, data: Data) -> None:
        """Redis restarts with this data."""
        self._replace(data)[0].alive = False

    def fail_over(self, data: Data) -> None:
        """Another server is promoted; the old one doesn't know of it yet, and closes nothing."""
        old, _ = self._replace(data)
        self.old, old.replica_of = old, None

    def _replace(self, data: Data) -> tuple[Server, Server]:
        old, self.primary = self.primary, Server(self.counters, copy.deepcopy(data))
        self.rejoin()
        return old, self.primary

    def rejoin(self) -> None:
        """The old master becomes a replica of the new one; its subscribers stay."""
        if self.old is not None:
            self.old.replica_of = self.primary
            self.primary.replicas.append(self.old)
            self.old = None

    def flush_all(self) -> None:
        self.primary.data = Data()

    def evict(self, channel: str, count: int) -> None:
        """Redis trims a channel's durable history, or forgets it."""
        del self.primary.data.streams.get(channel, [])[:count]

    # -- the end, and what must hold

    def settle(self) -> None:
        """Everything heals, is read, and all clients come back."""
        self.primary.refuses = False
        self.rejoin()
        for client in self.clients:
            if client.worker not in self.workers or not client.live or client.ended:
                self.come(client, self.rng.choice(self.staying()))
        for _ in range(60):
            self.counters.now += self.counters.spacing + 5
            self.tick(force=not self.primary.era[1])
            for worker in list(self.workers):
                while worker.connection.inbox:
                    worker.read(1 << 30)
                worker.read(1)
                for _ in range(4):
                    self.work(worker, 1.0)
            self.exits()
            for client in self.clients:
                while client.socket:
                    client.read()

    def check(self) -> Counter[str]:
        """What must hold in the end; returns how much of what was seen."""
        counted: Counter[str] = Counter()
        log = self.counters.log
        kept = {int(body) for entries in self.primary.data.streams.values() for _, _, body in entries}
        lineage = self.primary.lineage()
        for index, client in enumerate(self.clients):
            assert client.subscriber is not None
            assert client.live, "a stream that has ended"
            assert not client.ended, "a client that hasn't come back"
            assert client.subscriber.send == client.feed, ("a stream that never begins", client)
            assert self.stormy or not client.told, ("a gap told where nothing broke", client, client.told)
            astray = _check_each_once(client, log, self.stormy)
            counted["astray"] += astray
            counted["gaps"] += len(client.told)
            assert client.worker is not None
            listened = client.before + [(t, since, client.worker.position(t)) for t, since in client.since.items()]
            heard = {each.event for each in client.heard}
            for event in log:
                if not event.delivered:
                    assert event.number not in heard, ("a rejected message was delivered", event)
                    continue
                due = [t for t, s, e in listened if t in event.positions and s < event.positions[t] <= e]
                counted["due"] += bool(due)
                if not due or event.number in heard:
                    continue
                told = [
                    each
                    for each in client.told
                    if each.topic in event.positions and each.start < event.positions[each.topic] <= each.end
                ]
                if not told and client.lost_track:
                    counted["untold"] += 1  # found again by a publisher's id in the new master's history
                    continue
                assert told, ("lost and not told", index, client, event, client.told)
                strange = any(
                    each.strange
                    or each.start == ZERO
                    or (each.reason == "history_lost" and each.end < each.start)  # on a demoted master
                    or {each.start.generation, each.end.generation} - lineage
                    for each in told
                )
                assert event.number not in kept or strange, ("kept, and not had", index, client, event, told)
        return counted


def _check_each_once(client: Client, log: list[Logged], stormy: bool) -> int:
    """Nothing twice, and each channel in order; returns how many events are excused.

    Events may come once more that were heard from a demoted master before the new one's first tick, or that are
    resumed by a publisher's id under faults, or whose client was on the replaced master once more.
    """
    counts = Counter(each.event for each in client.heard)
    astray = {
        each.event
        for each in client.heard
        if client.went_back
        or (stormy if each.place is None else _generation(each.place) != _logged_generation(log[each.event]))
    }
    for event, count in counts.items():
        assert count <= (2 if event in astray else 1), ("twice", client, log[event])
    newest: dict[tuple[str, int], Position] = {}
    for each in client.heard:
        logged = log[each.event]
        at = logged.positions[logged.channel]
        key = logged.channel, at.generation  # between generations there is no order to check against
        if each.event not in astray:
            assert at > newest.get(key, ZERO), ("out of order", client, logged)
            newest[key] = at
    return len(astray)


def _generation(place: Place) -> int:
    return place.generation


def _logged_generation(logged: Logged) -> int:
    return logged.positions[logged.channel].generation
