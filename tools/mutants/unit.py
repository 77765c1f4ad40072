"""Mutants on the unit tests that call the changed function."""

import json
import random
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.mutants.outcomes import KILLED, SURVIVED, UNCALLED, Outcomes, function_of
from tools.mutants.prepare import COPY
from tools.mutants.trial import ORDER, RESULTS

SEED = 2026
QUICK_SECONDS = 0.1
"""A test that takes no longer is a quick one, measured with mutmut's detours; the model takes many times as long."""
QUICK_SECONDS_WITH_REDIS = 1.0
"""Likewise for one that starts a Redis."""


_SELECTED = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]["pytest_add_cli_args_test_selection"]


def _quick(test: str) -> float:
    return QUICK_SECONDS if test.startswith("tests/unit/") else QUICK_SECONDS_WITH_REDIS


def try_on_unit_tests(outcomes: Outcomes, mutants: Iterable[str], slow: bool) -> None:
    """Try these mutants on the quick tests, or on the slow ones."""
    stats: dict[str, Any] = json.loads((COPY / "mutmut-stats.json").read_text())
    duration: dict[str, float] = stats["duration_by_test"]
    tests_of: dict[str, list[str]] = stats["tests_by_mangled_function_name"]
    order: dict[str, tuple[list[str], float]] = {}
    uncalled: list[str] = []
    for mutant in mutants:
        called = tests_of.get(function_of(mutant), [])
        tests = sorted((test for test in called if (duration[test] > _quick(test)) == slow), key=duration.__getitem__)
        if tests:
            order[mutant] = tests, sum(duration[test] for test in tests)
        else:
            uncalled.append(mutant)
    # In no order, so that what was tried is a sample of all whenever the run is stopped.
    order = dict(random.Random(SEED).sample(list(order.items()), len(order)))
    layer = "slow" if slow else "quick"
    outcomes.note(layer, [(mutant, UNCALLED) for mutant in uncalled])
    if not order:
        return
    (COPY / ORDER).write_text(json.dumps(order))
    (COPY / RESULTS).unlink(missing_ok=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "tools.mutants.trial",
             "--tb=native", "--hypothesis-profile", "mutants", *_SELECTED],
            cwd=COPY, check=False,
        )  # fmt: skip
    finally:
        if (COPY / RESULTS).exists():
            lines = (json.loads(line) for line in (COPY / RESULTS).read_text().splitlines())
            outcomes.note(layer, [(mutant, SURVIVED if status == 0 else KILLED) for mutant, status in lines])
