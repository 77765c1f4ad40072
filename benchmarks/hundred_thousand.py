"""A hundred thousand streams on one machine, through nginx."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import nginx
from benchmarks.kernel import KernelMemory, Limit, kernel_memory, limits
from gateway.bench import server, usage
from gateway.bench.comparison import warm_up
from gateway.bench.errors import BenchError
from gateway.bench.load import Load
from gateway.bench.machine import SPARE_DESCRIPTORS, descriptors, orderly_end
from gateway.bench.result import Opening, Result
from gateway.bench.session import PER_SOURCE, Progress, Session, Target

_PER_NGINX = 8_500
"""Streams per nginx process: nginx.conf allows it 19,000 connections, a stream takes two, and the kernel deals them
out at random, so some get more than others."""

_FORGETTING = 150.0
"""Seconds in which the kernel forgets the connections of an earlier run; it takes two minutes."""

_AIM_STREAMS = 100_000
_AIM_BYTES = 400e6
"""What the workers of so many streams may take together at most, with what they share counted once."""

_EVENLY = 1.1
"""`least_conn` deals streams out evenly, but not exactly."""


@dataclass(frozen=True)
class Plan:
    """How many processes of each kind.

    Args:
        streams: in all.
        rate: messages per second, each to all streams.
        duration: seconds of publishing.
        edge: whether nginx stands in front; else the readers connect to the workers themselves.
        workers: processes of the gateway.
        edges: processes of nginx.
        readers: processes of the load generator.
    """

    streams: int
    rate: float
    duration: float
    edge: bool
    workers: int
    edges: int
    readers: int

    @property
    def load(self) -> Load:
        return Load(self.streams, self.rate, self.duration, processes=self.readers)

    @property
    def limits(self) -> list[Limit]:
        return list(limits(self.streams, min(PER_SOURCE, self.streams), tcp_upstreams=False))


def plan(streams: int, rate: float, duration: float, edge: bool, files: int | None = None) -> Plan:
    """As many processes as the limit of open files asks for."""
    room = (files or descriptors()) - SPARE_DESCRIPTORS
    workers = max(1, -(-int(streams * _EVENLY) // room))
    readers = max(-(-streams // room), 1 if edge else workers)
    # A reader connects to one worker, so each worker has as many readers as the others.
    if not edge:
        readers = workers * -(-readers // workers)
    return Plan(streams, rate, duration, edge, workers, max(1, -(-streams // _PER_NGINX)), readers)


@dataclass(frozen=True)
class Found:
    """What a run found.

    Attributes:
        memory: bytes of resident memory after the load, by kind of process: summed, and with what processes share
            counted once.
        kernel: growth of the kernel's memory while the streams were opened.
        limits: what the kernel allowed, and what was needed.
    """

    opening: Opening
    result: Result
    memory: Mapping[str, tuple[int, int]]
    kernel: KernelMemory
    limits: Sequence[Limit]


def run(plan: Plan, progress: Progress) -> Found:
    """Start everything, open all streams, publish, reconcile.

    Nothing is pinned: nginx, workers and load share the cores as the kernel thinks best, because none of them would
    fit one core.
    """
    end = time.monotonic() + _FORGETTING
    while lacking := [limit for limit in plan.limits if not limit.suffices]:
        if all(limit.passes for limit in lacking) and time.monotonic() < end:
            progress("waiting until the kernel forgets closed connections", 0, 0)
            time.sleep(1)
            continue
        words = ", ".join(f"{limit.name} is {limit.value:,} and should be {limit.needed:,}" for limit in lacking)
        raise BenchError(f"The kernel allows too little for {plan.streams:,} streams: {words}.")
    with _servers(plan) as target:
        return asyncio.run(_measure(plan, target, progress))


@contextmanager
def _servers(plan: Plan) -> Iterator[Target]:
    cores = frozenset(os.sched_getaffinity(0))
    with ExitStack() as stack:
        stack.enter_context(orderly_end())
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-benchmarks-")))
        redis_url = stack.enter_context(server.redis_server(cores))
        paths = [str(directory / f"{number}.sock") if plan.edge else "" for number in range(plan.workers)]
        workers = [
            stack.enter_context(server.worker(redis_url, cores, {"GATEWAY_UNIX_SOCKET": path})) for path in paths
        ]
        pids = tuple(worker.pid for worker in workers)
        target = Target(workers[0].url, redis_url, pids=pids, cores=cores)
        if plan.edge:
            configuration = nginx.edge_configuration([f"unix:{path}" for path in paths], plan.edges)
            edge = stack.enter_context(nginx.running(directory / "edge", cores, configuration))
            yield replace(target, url=f"http://127.0.0.1:{edge.port}/events", proxy_pids=edge.pids)
        else:
            yield replace(target, more_urls=tuple(worker.url for worker in workers[1:]))


async def _measure(plan: Plan, target: Target, progress: Progress) -> Found:
    cores = target.cores
    await warm_up(target, plan.load, cores, progress)
    before, allowed = kernel_memory(), plan.limits
    async with Session(target, plan.load, cores, progress) as session:
        opening = await session.open()
        kernel = kernel_memory().since(before)
        result = await session.publish(plan.rate, plan.duration)
        memory = {
            "workers": (usage.resident_bytes(target.pids), usage.proportional_bytes(target.pids)),
            "nginx": (usage.resident_bytes(target.proxy_pids), usage.proportional_bytes(target.proxy_pids)),
        }
    return Found(opening, result, memory, kernel, allowed)


def rows(plan: Plan, found: Found) -> Mapping[str, str]:
    """What a person reads of it."""
    result, opening = found.result, found.opening
    latencies = " / ".join(f"{result.latency(name):,.0f}" for name in ("p50", "p90", "p99", "p99.9", "max"))
    processes = f"{plan.workers} workers, {plan.edges if plan.edge else 'no'} nginx, {plan.readers} readers"
    return {
        "load": f"{plan.streams:,} streams, {plan.rate:g} messages/s to all for {plan.duration:g} s",
        "processes": processes,
        "deliveries": f"{result.received:,} of {result.expected:,}",
        "lost / repeated / out of order": f"{result.lost:,} / {result.duplicates:,} / {result.out_of_order:,}",
        "streams that ended": f"{result.closed:,}",
        "latency p50 / p90 / p99 / p99.9 / max": f"{latencies} ms",
        "deliveries per second": f"{result.deliveries_per_second:,.0f}",
        "connects per second": f"{opening.rate:,.0f}",
        "CPU per delivery, workers + nginx": " + ".join(
            f"{(share or 0.0) * 1e6:.1f}" for share in (result.cpu_per_delivery, result.proxy_cpu_per_delivery)
        )
        + " µs",
        "memory of the workers together": _megabytes(*found.memory["workers"]),
        "memory of nginx together": _megabytes(*found.memory["nginx"]),
        "memory of the kernel": f"{found.kernel.slab / 1e6:,.0f} MB, load generator's sockets included",
        "memory of everything": f"{-found.kernel.available / 1e6:,.0f} MB, load generator included",
        "cores used while publishing": _cores(result),
        "kernel's limits (needed)": ", ".join(
            f"{limit.name} {limit.value:,} ({limit.needed:,})" for limit in found.limits
        ),
        **_aims(plan, found),
    }


def _aims(plan: Plan, found: Found) -> Mapping[str, str]:
    result = found.result
    share = result.received / result.expected if result.expected else 0.0
    aims = {
        "aim: 100 % delivered, once and in order": _verdict(
            f"{share * 100:.4f} %" if result.lost else "100 %", result.complete and not result.closed
        )
    }
    if plan.streams >= _AIM_STREAMS:  # fewer would make it easy
        _, once = found.memory["workers"]
        aims[f"aim: workers ≤ {_AIM_BYTES / 1e6:.0f} MB together, what they share counted once"] = _verdict(
            f"{once / 1e6:,.0f} MB", once <= _AIM_BYTES
        )
    return aims


def _verdict(measured: str, reached: bool) -> str:
    return f"{measured}: {'yes' if reached else 'NO'}"


def _megabytes(summed: int, shared_once: int) -> str:
    return f"{summed / 1e6:,.0f} MB; {shared_once / 1e6:,.0f} MB with what they share counted once"


def _cores(result: Result) -> str:
    own = ((result.cpu or 0.0) + (result.proxy_cpu or 0.0)) / result.seconds
    return f"{own:.2f} by workers and nginx, {result.others_share or 0.0:.2f} by everybody else, the load included"
