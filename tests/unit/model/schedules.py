"""Random schedules: `python -m tests.unit.model.schedules [RUNS] [FIRST_SEED]`."""

import random
import sys
from collections import Counter

from tests.unit.model.names import CHANNELS, DECLARED
from tests.unit.model.server import Data
from tests.unit.model.world import KINDS, World

STEPS = 900


class Schedule:
    """Plays one schedule.

    Args:
        seed: chooses the kind as well.
    """

    def __init__(self, seed: int, kind: str | None = None) -> None:
        self.kind = kind or KINDS[seed % len(KINDS)]
        self.rng = random.Random(seed)
        events = {"small": self.rng.choice([2, 8, 25]), "none": 0}.get(self.kind, 10_000)
        linger = self.rng.choice([30.0, 1e9]) if self.kind not in ("calm", "cuts") else 1e9
        self.world = World(self.rng, self.kind, self.rng.choice([0, 0, 3, 20]), events, linger)

    def play(self, steps: int = STEPS) -> Counter[str]:
        for _ in range(steps):
            self._move()
            self.world.exits()
        self.world.settle()
        return self.world.check()

    def _move(self) -> None:
        rng, world = self.rng, self.world
        world.counters.now += 1
        roll = rng.random()
        client = rng.choice(world.clients)
        if roll < 0.3:
            channel = rng.choice(CHANNELS)
            durable = (channel in DECLARED and rng.random() < 0.9) or rng.random() < 0.25
            world.publish(channel, durable, rng.random() < 0.1, rng.random() < 0.05, rng.random() < 0.4)
        elif roll < 0.32:
            world.tick(old=rng.random() < 0.3, force=rng.random() < 0.3)
        elif roll < 0.35:
            if client.last_id is not None and rng.random() < 0.2:
                client.leave()
                client.change(world.choose())
            world.come(client, rng.choice(world.staying()), 2 if rng.random() < 0.2 else 0)
        elif roll < 0.36:
            client.leave()
        elif roll < 0.363 and self.kind == "calm" and not world.leaving:
            world.retire()
        elif roll < 0.366 and self.kind != "calm":
            self._fault()
        elif roll < 0.37 and world.old is not None and rng.random() < 0.5:
            world.rejoin()
        elif roll < 0.375 and rng.random() < 0.1:
            world.save()
        elif roll < 0.65:
            for _ in range(rng.randint(1, 6)):
                rng.choice(world.workers).read(rng.choice([1, 1, 3]))
        elif roll < 0.85:
            for _ in range(min(len(client.socket), rng.randint(1, 4))):
                client.read()
        else:
            worker = rng.choice(world.workers)
            if rng.random() < 0.2:
                worker.silent()
            world.work(worker, impatient=world.stormy and rng.random() < 0.05)
        for each in world.clients:
            if each.ended and not each.socket:
                world.come(each, rng.choice(world.staying()))

    def _fault(self) -> None:
        rng, world = self.rng, self.world
        roll = rng.random()
        first = 1 if self.kind == "cuts" else 0
        if self.kind == "refusals" and rng.random() < 0.4:
            world.primary.refuses = not world.primary.refuses
        elif roll < 0.45:
            rng.choice(world.workers[first:]).cut()
        elif roll < 0.6:
            world.die(rng.randrange(first, len(world.workers)))
        elif self.kind == "cuts":
            return
        elif roll < 0.68:
            world.restart(world.primary.data)
        elif roll < 0.72:
            world.restart(world.saved)
        elif roll < 0.74:
            world.restart(Data())
        elif roll < 0.82:
            world.fail_over(world.saved if rng.random() < 0.5 else world.primary.data)
        elif roll < 0.85:
            world.flush_all()
        elif roll < 0.97 and world.primary.data.streams:
            world.evict(rng.choice(sorted(world.primary.data.streams)), rng.choice([1, 3, 1000]))
        else:
            world.all_die()


def run(seed: int, kind: str | None = None) -> tuple[str, Counter[str]]:
    """Play the schedule of a seed.

    Raises:
        AssertionError: something did not hold; says what, and the seed.
    """
    schedule = Schedule(seed, kind)
    try:
        return schedule.kind, schedule.play()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, {schedule.kind}: {error}") from error


def first_failure(runs: int) -> int | None:
    """The first seed whose schedule shows a fault, whatever it is; None if none does."""
    for seed in range(runs):
        try:
            run(seed)
        except Exception:
            return seed
    return None


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    counted: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    failures = 0
    for seed in range(first, first + runs):
        try:
            kind, seen = run(seed)
        except AssertionError as error:
            failures += 1
            print(error)
            continue
        counted[kind] += seen
        counted[kind]["schedules"] += 1
    for kind, seen in counted.items():
        print(kind, dict(seen))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
