"""Playing a target's cases, and looking at the worker afterwards."""

import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.case import Case, Failure
from fuzz.chance import chance_of
from fuzz.stage import MEMORY_BOUND, Stage, State
from fuzz.target import Target

_SEARCHED = 3
"""Batches that are taken apart to find the cases that are to blame, and such cases of each: enough to look at."""


@dataclass
class Result:
    """What came of a target.

    Attributes:
        counts: of the cases, by what came of each.
        grown: bytes by which the worker's memory has grown.
    """

    name: str
    what: str
    cases: int = 0
    seconds: float = 0.0
    grown: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def generated(target: Target, seed: int, numbers: Iterable[int]) -> Iterable[Case]:
    """The cases with these numbers."""
    for number in numbers:
        yield Case(str(number), target.make(chance_of(seed, target.name, number)))


def play(target: Target, cases: Iterable[Case], progress: Callable[[int], None] = lambda _: None) -> Result:
    """All cases, with a worker of their own."""
    result = Result(target.name, " ".join((target.__doc__ or "").split()), counts=target.counts)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="gateway-fuzz-") as directory,
        Stage(Path(directory), **target.settings) as stage,
    ):
        target.prepare(stage)
        rest, memory = stage.warm_up(), stage.memory()
        searched = 0
        for batch in _batches(cases, target.batch):
            failures = _play(target, stage, batch)
            if failures and searched < _SEARCHED and len(batch) > 1:
                searched += 1
                failures = _blamed(target, stage, batch, failures)
            result.failures += failures
            result.cases += len(batch)
            progress(len(batch))
            if not stage.worker.alive:
                break
        result.failures += [Failure(None, what) for what in _afterwards(stage, rest)]
        result.grown = stage.memory() - memory if stage.worker.alive else 0
        if result.grown > MEMORY_BOUND:
            result.failures.append(Failure(None, f"the worker's memory has grown by {result.grown} bytes"))
    result.seconds = time.monotonic() - began
    return result


def _afterwards(stage: Stage, rest: State) -> list[str]:
    if not stage.worker.alive:
        return []  # said before
    found = []
    try:
        stage.serve()
    except Exception as error:
        found.append(f"the worker no longer serves: {error!r}")
    if left := stage.wait_at_rest(rest):
        found.append(left)
    return found + stage.troubles()


def _play(target: Target, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
    try:
        failures = asyncio.run(target.play(stage, cases))
    except Exception as error:
        failures = [Failure(None, f"{type(error).__name__}: {error}")]
    return failures + [Failure(None, what) for what in stage.troubles()]


def _blamed(target: Target, stage: Stage, batch: Sequence[Case], failures: list[Failure]) -> list[Failure]:
    """The failures by case, if single cases fail by themselves."""
    if all(failure.case is not None for failure in failures):
        return failures
    found = []
    for case in batch:
        found += [Failure(case, failure.what) for failure in _play(target, stage, [case])]
        if len(found) >= _SEARCHED:
            break
    name = f"{batch[0].name}-{batch[-1].name}"
    return found or [Failure(failure.case or Case(name, None), failure.what) for failure in failures]


def _batches(cases: Iterable[Case], size: int) -> Iterable[list[Case]]:
    iterator = iter(cases)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
