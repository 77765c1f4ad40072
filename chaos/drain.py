"""A worker with very many streams leaves."""

import time

from chaos.row import Row
from chaos.stage import Plan, Stage

_WINDOW = 10
_UNEVEN = 0.05
"""A quarter of the window holds a quarter of the endings, give or take this share of all."""


def full_worker_leaves(stage: Stage) -> None:
    """All streams are on one worker; two empty ones come, and it leaves."""
    leaving, *others = stage.workers
    for worker in others:
        worker.start()
    began = time.monotonic_ns()
    leaving.stop(60)
    took = (time.monotonic_ns() - began) / 1e9
    stage.wait_all_open()
    leaving.start()
    window = stage.settings["drain_window"]
    endings = [ending for client in stage.report() for ending in client["endings"] if ending[0] >= began]
    # Before the window, others take over what only this worker knows.
    first = min(at for at, _ in endings)
    quarters = [0, 0, 0, 0]
    for at, _ in endings:
        quarters[min(3, int((at - first) / 1e9 / window * 4))] += 1
    shares = [count / len(endings) for count in quarters]
    broken = sum(not cleanly for _, cleanly in endings)
    clients = stage.total("clients")
    last = (max(at for at, _ in endings) - first) / 1e9
    spread = ", ".join(f"{share:.0%}" for share in shares)
    stage.notes.append(
        f"{len(endings):,} streams ended over {last:.1f} s, {broken} of them not cleanly; by quarters of the window "
        f"{spread}; the worker was gone after {took:.1f} s"
    )
    if broken or len(endings) != clients:
        stage.faults.append(f"{len(endings)} endings of {clients} streams, {broken} of them not clean")
    if max(abs(share - 0.25) for share in shares) > _UNEVEN:
        stage.faults.append(f"the endings are not spread evenly: {shares}")
    if last > window + 1:
        stage.faults.append("streams outlived the window")


DRAIN = Row(
    "drain of 5,000 streams",
    full_worker_leaves,
    Plan(streams=5000, rate=1, late=2, settings={"drain_window": _WINDOW, "shutdown_timeout": 20}),
)
