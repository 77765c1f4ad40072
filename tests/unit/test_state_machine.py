"""The world of tests/unit/model under a state machine, which makes what it finds as short as it can."""

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.unit.model.names import CHANNELS, DECLARED, NAMES
from tests.unit.model.server import Data
from tests.unit.model.world import KINDS, World

workers = st.integers(0, 2)
clients = st.integers(0, 2)
channels = st.sampled_from(CHANNELS)
topics = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)


class Machine(RuleBasedStateMachine):
    """Each rule is one thing that can happen; what must hold is looked at in the end."""

    world: World

    @initialize(
        kind=st.sampled_from(KINDS),
        seed=st.integers(0, 3),
        spacing=st.sampled_from([0, 3]),
        linger=st.sampled_from([30.0, 1e9]),
    )
    def begin(self, kind: str, seed: int, spacing: int, linger: float) -> None:
        events = {"small": 2, "none": 0}.get(kind, 10_000)
        self.world = World(
            random.Random(seed), kind, spacing, events, linger if kind not in ("calm", "cuts") else 1e9
        )

    @rule(channel=channels, durable=st.booleans(), own=st.booleans(), garbage=st.booleans(), old=st.booleans())
    def publish(self, channel: str, durable: bool, own: bool, garbage: bool, old: bool) -> None:
        self._pass_time()
        self.world.publish(channel, durable or channel in DECLARED, own, garbage and not own, old)

    @rule(old=st.booleans(), force=st.booleans())
    def tick(self, old: bool, force: bool) -> None:
        self._pass_time()
        self.world.tick(old, force)

    @rule(client=clients, worker=workers, history=st.sampled_from([0, 2]))
    def come(self, client: int, worker: int, history: int) -> None:
        staying = self.world.staying()
        self.world.come(self.world.clients[client], staying[worker % len(staying)], history)

    @rule(client=clients, wanted=topics)
    def change(self, client: int, wanted: list[str]) -> None:
        self.world.clients[client].leave()
        self.world.clients[client].change(sorted(wanted))

    @rule(client=clients)
    def leave(self, client: int) -> None:
        self.world.clients[client].leave()

    @rule(client=clients, most=st.integers(1, 20))
    def read(self, client: int, most: int) -> None:
        socket = self.world.clients[client].socket
        for _ in range(min(len(socket), most)):
            self.world.clients[client].read()

    @rule(worker=workers, most=st.integers(1, 20))
    def hear(self, worker: int, most: int) -> None:
        self._pass_time()
        self.world.workers[worker % len(self.world.workers)].read(most)

    @rule(worker=workers, rounds=st.integers(1, 5))
    def work(self, worker: int, rounds: int) -> None:
        for _ in range(rounds):
            self._pass_time()
            self.world.work(self.world.workers[worker % len(self.world.workers)], 1.0)
        self.world.exits()

    @precondition(lambda self: self.world.kind == "calm" and not self.world.leaving)
    @rule()
    def retire(self) -> None:
        self.world.retire()

    @precondition(lambda self: self.world.kind != "calm")
    @rule(worker=workers, dies=st.booleans())
    def break_worker(self, worker: int, dies: bool) -> None:
        first = 1 if self.world.kind == "cuts" else 0
        index = max(first, worker % len(self.world.workers))
        if dies:
            self.world.die(index)
        else:
            self.world.workers[index].cut()

    @precondition(lambda self: self.world.stormy)
    @rule(data=st.sampled_from(["all", "old", "none"]), closes=st.booleans())
    def replace_redis(self, data: str, closes: bool) -> None:
        world = self.world
        left = {"all": world.primary.data, "old": world.saved, "none": Data()}[data]
        if closes:
            world.restart(left)
        else:
            world.fail_over(left)

    @rule()
    def save(self) -> None:
        self.world.save()

    @precondition(lambda self: self.world.stormy)
    @rule(what=st.sampled_from(["flush", "rejoin", "all die"]))
    def harm(self, what: str) -> None:
        if what == "flush":
            self.world.flush_all()
        elif what == "rejoin":
            self.world.rejoin()
        else:
            self.world.all_die()

    @precondition(lambda self: self.world.stormy)
    @rule(channel=channels, count=st.sampled_from([1, 1000]))
    def evict(self, channel: str, count: int) -> None:
        self.world.evict(channel, count)

    @precondition(lambda self: self.world.kind == "refusals")
    @rule()
    def refuse(self) -> None:
        self.world.primary.refuses = not self.world.primary.refuses

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check()

    def _pass_time(self) -> None:
        self.world.counters.now += 1


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
