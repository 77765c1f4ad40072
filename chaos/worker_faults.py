"""What breaks in the workers, or in one of them."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chaos.columns import GROUPS, OWN
from chaos.stage import Stage
from chaos.worker import AnyWorker


def worker_killed(stage: Stage) -> None:
    with stage.unknown(OWN):  # to the worker that is killed, some of these were known alone
        worker = stage.victim()
        worker.kill()
        worker.start()


def worker_leaves(stage: Stage) -> None:
    worker = stage.victim()
    worker.stop()
    worker.start()


def all_workers_replaced(stage: Stage) -> None:
    for worker in stage.workers:
        worker.stop()
        worker.start()


def workers_updated(stage: Stage) -> None:
    """As deploy/rolling-update does it: one more is started and ready before an old one is told to leave."""
    *old, spare = stage.workers
    for worker in old:
        spare.start()
        worker.stop()
        spare = worker
    spare.start()


def all_workers_killed(stage: Stage) -> None:
    with stage.unknown(GROUPS):
        for worker in stage.workers:
            worker.kill()
        stage.play(0.3)
        _start_all(stage)


def all_workers_leave(stage: Stage) -> None:
    with stage.unknown(GROUPS):
        for worker in stage.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in stage.workers:
            worker.stop()
        _start_all(stage)


def _start_all(stage: Stage) -> None:
    for worker in stage.workers:
        worker.start(wait=False)
    stage.wait_workers()


def worker_cut_off(stage: Stage) -> None:
    """One worker's subscribing connection is closed; the others hear everything."""
    with stage.redis_lost(OWN), stage.redis.client() as client:
        stage.cut(0.1)
        connections = client.client_list(_type="pubsub")
        client.execute_command("CLIENT", "KILL", "ID", random.choice(connections)["id"])


def worker_stalled(seconds: float) -> Callable[[Stage], None]:
    """One worker doesn't run for so long, while clients move away from it, and back once it runs."""

    def fault(stage: Stage) -> None:
        with held([stage.victim()]):
            stage.cut(0.5)
            stage.play(seconds)
        for _ in range(3):
            stage.cut(0.5)
            stage.play(0.5)

    return fault


@contextmanager
def held(workers: Sequence[AnyWorker]) -> Iterator[None]:
    """These workers don't run."""
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
