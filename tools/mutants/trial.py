"""A pytest plugin: tries mutants on the collected tests, each in a fork, instead of running the tests once.

mutmut starts pytest anew for each mutant, which takes a hundred times as long as most tests. Here everything is
imported and collected once, and no test has run before the fork: what earlier tests have left in caches would hide
mutants.
"""

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test

ORDER = Path("trial.json")
"""What is to be tried: by mutant, its tests in their order, and the CPU seconds that they take without it."""
RESULTS = Path("trial-results.jsonl")
_PROCESSES = 8
"""More than there are cores: a mutant often waits for what never comes."""
_SLACK = 3.0
"""CPU seconds beside a multiple of what the tests take; whoever needs more is in an endless loop."""
_MULTIPLE = 5
_WALL_SECONDS = 30.0
"""Whoever needs no CPU, either, waits for what never comes."""

KILLED, SURVIVED = 1, 0


class Trial:
    """Runs the tests of each mutant until the first that fails."""

    def __init__(self, order: dict[str, tuple[list[str], float]]) -> None:
        self._order = order
        # By process: mutant, and when it is given up.
        self._running: dict[int, tuple[str, float]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        _use_originals()
        gc.freeze()
        with RESULTS.open("a") as results:
            for mutant, (tests, seconds) in self._order.items():
                while len(self._running) >= _PROCESSES:
                    self._reap(results.write)
                    results.flush()
                self._start(mutant, [items[test] for test in tests if test in items], seconds)
            while self._running:
                self._reap(results.write)
        return True

    def _start(self, mutant: str, items: Sequence[pytest.Item], seconds: float) -> None:
        if pid := os.fork():
            self._running[pid] = mutant, time.monotonic() + _WALL_SECONDS + 20 * seconds
            return
        failed = KILLED
        try:
            limit = int(time.process_time() + _SLACK + _MULTIPLE * seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            set_mutant_under_test(mutant)
            _use(mutant)
            failed = KILLED if any(_fails(item, after) for item, after in _with_next(items)) else SURVIVED
            # A Redis that the tests have started.
            with contextlib.suppress(BaseException):
                items[0].session._setupstate.teardown_exact(None)
        finally:
            os._exit(failed)

    def _reap(self, write: Callable[[str], object]) -> None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            for late in [each for each, (_, deadline) in self._running.items() if deadline < time.monotonic()]:
                os.kill(late, signal.SIGKILL)
            time.sleep(0.005)
            return
        mutant, _ = self._running.pop(pid)
        write(json.dumps([mutant, os.waitstatus_to_exitcode(status)]) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Trial(json.loads(ORDER.read_text())))


def _fails(item: pytest.Item, after: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=after))


def _with_next(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    return zip(items, [*items[1:], None], strict=True)


def _mutated(prefix: str = "gateway.") -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Where each mutated function of some modules stands, its name there, and what it can be replaced with."""
    for module in [each for name, each in sys.modules.items() if name.startswith(prefix)]:
        for name, functions in [each for each in vars(module).items() if each[0].startswith("mutants_x")]:
            path = name.removeprefix("mutants_x").removesuffix("__mutmut")
            if path.startswith("ǁ"):
                _, class_name, method = path.split("ǁ")
                yield getattr(module, class_name), method, functions
            else:
                yield module, path.removeprefix("_"), functions


def _use_originals() -> None:
    """Undo what makes a mutated function slow: asking at each call which mutant is active."""
    for owner, name, functions in _mutated():
        if _is_plain(owner, name):
            setattr(owner, name, functions["_mutmut_orig"])


def _use(mutant: str) -> None:
    module, _, wanted = mutant.rpartition(".")
    for owner, name, functions in _mutated(module):
        if wanted in functions and _is_plain(owner, name):
            setattr(owner, name, functions[wanted])


def _is_plain(owner: Any, name: str) -> bool:
    return not isinstance(vars(owner)[name], staticmethod | classmethod)
