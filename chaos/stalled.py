"""A tenth of the clients stops reading, twice; what do the others notice?"""

import psutil

from chaos.row import Row
from chaos.stage import Plan, Stage
from testing.waiting import wait_until

_QUEUE_BYTES = 131_072
_PHASE = 4.0
_SLACK = 24 << 20
"""Bytes a worker may grow by for other reasons: its history, and what the allocator holds."""


def clients_stall(stage: Stage) -> None:
    """Without and with stalled clients, twice in turn, so that a change of the machine's mood hits both."""
    quiet: list[int] = []
    stalled: list[int] = []
    growth = 0
    for _ in range(2):
        quiet += _latencies(stage)
        memory, overflows = _memory(stage), _overflows(stage)
        stage.tell_fleets("stall")
        stalled += _latencies(stage)
        growth = max(growth, _growth_until(stage, overflows, memory))
        stage.tell_fleets("resume")
        stage.wait_all_open()
    with_, without = _p99(stalled), _p99(quiet)
    stage.notes.append(
        f"p99 of the healthy: {with_ / 1000:.1f} ms with stalled clients, {without / 1000:.1f} ms without "
        f"({with_ / without:.2f} ×)"
    )
    most = round(stage.plan.streams * stage.plan.small) * (_QUEUE_BYTES + stage.plan.size) + _SLACK
    stage.notes.append(f"a worker grew by at most {growth / 1e6:.1f} MB; {most / 1e6:.1f} MB are the bound")
    if growth > most:
        stage.faults.append(f"a worker grew by {growth / 1e6:.1f} MB; queues may hold {most / 1e6:.1f} MB")


def _latencies(stage: Stage) -> list[int]:
    stage.tell_fleets("measure")
    stage.play(_PHASE)
    stage.tell_fleets("measured")
    return [value for fleet in stage.fleets for value in fleet.receive()["values"]]


def _growth_until(stage: Stage, overflows: int, before: list[int]) -> int:
    """The most that a worker grows by until there are more overflows than that; in bytes."""
    growth = 0

    def overflowed() -> bool:
        nonlocal growth
        growth = max(growth, *(now - then for now, then in zip(_memory(stage), before, strict=True)))
        return _overflows(stage) > overflows

    wait_until(overflowed, "a worker lets a stalled client go")
    return growth


def _p99(values: list[int]) -> int:
    return sorted(values)[len(values) * 99 // 100]


def _memory(stage: Stage) -> list[int]:
    return [int(psutil.Process(worker.pid).memory_info().rss) for worker in stage.workers]


def _overflows(stage: Stage) -> int:
    return sum(int(worker.metric('gateway_streams_closed_total{reason="overflow"}')) for worker in stage.workers)


STALLED = Row(
    "10 % of clients stalled",
    clients_stall,
    # Large messages, for the kernel and nginx still hold some hundred kilobytes before the worker feels it.
    Plan(
        small=0.1,
        size=4096,
        tight=True,
        settings={"queue_bytes": _QUEUE_BYTES},
    ),
)
