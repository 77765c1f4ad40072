"""Many faults in random order, for long: does anything grow, and is anything lost?"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import click
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from chaos import document, edge_faults, firewall, redis_faults, table, worker_faults
from chaos.account import Account
from chaos.columns import DURING, LATE
from chaos.descriptors import worker_without_descriptors
from chaos.promise import NOWHERE, Promise
from chaos.row import Result, Row, faults_of
from chaos.stage import Plan, Stage

_SAMPLE_SECONDS = 5.0
_CHURN_SECONDS = 2.0
_CHURN_SHARE = 0.02
_QUIET = (3.0, 12.0)
"""Seconds between two faults."""
_SETTLING = 1 / 3
"""Share of the time in which histories and pools may fill."""
_FLAT_MEMORY = 20.0
"""MB per hour. 600 clients that come and go move it by a few MB either way in twenty minutes."""
_FLAT_FILES = 10.0
"""Descriptors per hour, beyond one for each stream."""


def worker_stalls(stage: Stage) -> None:
    """For as long as a process may be stopped without anybody noticing."""
    worker_faults.worker_stalled(0.4)(stage)


_FAULTS: list[Callable[[Stage], None]] = [
    worker_faults.worker_killed,
    worker_faults.worker_leaves,
    worker_faults.worker_cut_off,
    worker_stalls,
    edge_faults.nginx_reloads,
    edge_faults.nginx_restarts,
    redis_faults.redis_restarts,
    redis_faults.redis_drops_workers,
    redis_faults.redis_pauses,
    redis_faults.redis_stopped,
    worker_without_descriptors,
]

_PROMISE = Promise(calm=NOWHERE)
"""Redis restarts again and again, so gap events are due everywhere. It keeps everything."""


@dataclass(frozen=True)
class Sample:
    """The worker that no fault ends.

    Attributes:
        at: seconds since the beginning.
        memory: resident, in MB.
        files: open descriptors beyond one for each stream.
    """

    at: float
    memory: float
    files: float


class Soak:
    """Breaks things until the time is over.

    Args:
        stage: what they are broken on.
        seconds: how long.
        progress: told what is going on.
    """

    def __init__(self, stage: Stage, seconds: float, progress: Callable[[str, float], None]) -> None:
        self.samples: list[Sample] = []
        self.broken: Counter[str] = Counter()
        self._stage = stage
        self._faults = [*_FAULTS, *([] if firewall.unavailable() else [redis_faults.redis_unreachable])]
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._progress = progress
        self._next_sample = self._next_churn = self._began

    def run(self) -> None:
        while time.monotonic() < self._end:
            self._quiet(random.uniform(*_QUIET))
            fault = random.choice(self._faults)
            name = fault.__name__.replace("_", " ")
            self._progress(name, time.monotonic() - self._began)
            self.broken[name] += 1
            began = time.monotonic()
            try:
                fault(self._stage)
                self._stage.wait_workers()
                self._stage.wait_all_open()
            except AssertionError as error:
                self._stage.faults.append(f"{name}: {error}")
            self._log(name, began)

    def _log(self, name: str, began: float) -> None:
        # By the clock the losses are told in, so that each can be laid beside the fault it came of.
        begin, end = began - self._stage.began, time.monotonic() - self._stage.began
        with (self._stage.directory / "faults.log").open("a") as file:
            file.write(f"{begin:8.1f} {end:8.1f} {name}\n")

    def _quiet(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now >= self._next_sample:
                self._next_sample = now + _SAMPLE_SECONDS
                self._sample(now)
            if now >= self._next_churn:
                self._next_churn = now + _CHURN_SECONDS
                self._stage.cut(_CHURN_SHARE)
            self._progress("churn", now - self._began)
            self._stage.play(0.2)

    def _sample(self, now: float) -> None:
        witness = self._stage.workers[0]
        process = psutil.Process(witness.pid)
        files = process.num_fds() - witness.metric("gateway_streams")
        self.samples.append(Sample(now - self._began, process.memory_info().rss / 1e6, files))


def slopes(samples: Sequence[Sample]) -> tuple[float, float]:
    """MB and descriptors per hour, once things have settled."""
    settled = [sample for sample in samples if sample.at >= samples[-1].at * _SETTLING]
    hours = [sample.at / 3600 for sample in settled]
    return (
        linear_regression(hours, [sample.memory for sample in settled]).slope,
        linear_regression(hours, [sample.files for sample in settled]).slope,
    )


@click.command()
@click.option("--minutes", type=click.FloatRange(0.5), default=20.0, show_default=True)
@click.option("--streams", "count", type=click.IntRange(100), default=600, show_default=True)
@click.option("--rate", default=10.0, show_default=True, help="Messages per second on each shared channel.")
@click.option("--write", is_flag=True, help="Write what came of it into docs/reliability.md.")
@click.option("--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs here.")
@click.pass_context
def soak(context: click.Context, minutes: float, count: int, rate: float, write: bool, logs: Path | None) -> None:
    """Break things at random while clients come and go, for long."""
    plan = Plan(
        streams=count,
        rate=rate,
        redis=redis_faults.APPEND_ONLY,
        nginx={"worker_shutdown_timeout 10s;": "worker_shutdown_timeout 3s;"},
    )
    if logs is not None:
        logs.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory(prefix="gateway-soak-") as temporary,
        Stage(logs or Path(temporary), plan) as stage,
    ):
        stage.begin()
        stage.wake(DURING)
        stage.wake(LATE)
        with Progress(
            TextColumn("{task.description:30}"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True)
        ) as bar:
            task = bar.add_task("", total=minutes * 60)
            going = Soak(stage, minutes * 60, lambda what, at: bar.update(task, description=what, completed=at))
            going.run()
        accounts = stage.end(_PROMISE)
    result = _result(stage, going, accounts, minutes)
    output = Console(width=None if Console().is_terminal else 170)
    output.print(table.terminal([result]))
    remarks = table.remarks([result])
    for remark in remarks:
        output.print(remark, highlight=False, soft_wrap=True)
    if write:
        document.write("soak", document.dated(table.markdown([result]), remarks))
    context.exit(bool(result.faults))


def _result(stage: Stage, soak: Soak, accounts: dict[str, Account], minutes: float) -> Result:
    memory, files = slopes(soak.samples)
    first, last = soak.samples[0], soak.samples[-1]
    notes = [
        "faults: " + ", ".join(f"{count} × {name}" for name, count in sorted(soak.broken.items())),
        f"memory of the worker that lived through all of it: {first.memory:.1f} MB at the beginning, "
        f"{last.memory:.1f} MB at the end, {memory:+.1f} MB per hour after the first third",
        f"its descriptors beyond one for each stream: {first.files:.0f} and {last.files:.0f}, {files:+.1f} per hour",
        *(note for note in stage.notes if note.startswith("the publisher")),
    ]
    faults = [*stage.faults, *faults_of(accounts, _PROMISE)]
    if memory > _FLAT_MEMORY:
        faults.append(f"memory grows by {memory:.1f} MB per hour")
    if files > _FLAT_FILES:
        faults.append(f"descriptors grow by {files:.1f} per hour")
    return Result(Row(f"{minutes:g} minutes of faults", lambda _: None), accounts, faults, notes)
