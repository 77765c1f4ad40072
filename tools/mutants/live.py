"""Mutants on the live tests: real workers, which find the mutant by the environment variable that they inherit."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from tempfile import TemporaryFile

from tools.mutants.outcomes import KILLED, SURVIVED, Outcomes, module_of
from tools.mutants.prepare import COPY

_RESUME = ("test_resume_corners.py", "faults/test_durable.py", "test_moving.py")
_STREAMS = ("test_delivery.py", "test_resume.py", "test_replay_limits.py")
_TESTS = {
    "memory": (*_STREAMS, *_RESUME, "faults/test_patterns.py", "test_glob.py"),
    "fanout": (*_STREAMS, "test_address_limits.py", "test_reliability.py", "test_lifecycle.py", "test_gzip.py"),
    "broker/clock": ("test_redis.py", "faults/test_refused_clock.py", "faults/test_quiet.py", "test_reliability.py"),
    "broker/functions": ("test_library.py", "test_secret.py", "faults/test_secret_change.py", "test_redis.py"),
    "broker/library": ("test_library.py", "test_commands.py", "faults/test_durable.py", "test_replay_limits.py"),
    "broker/link": (
        "test_delivery.py",
        "test_redis.py",
        "faults/test_patterns.py",
        "faults/test_forged.py",
        "faults/test_foreign.py",
    ),
    "broker/past": ("faults/test_durable.py", "test_moving.py", "test_peers.py", "faults/test_flapping.py"),
    "broker/peers": ("test_peers.py", "test_moving.py", "faults/test_mixed.py"),
    "broker/coverage": ("test_peers.py", "test_moving.py", "faults/test_mixed.py"),
    "broker/reading": ("test_replay_limits.py", "faults/test_durable.py", "test_library.py"),
    "broker/redis_history": ("faults/test_durable.py", "test_replay_limits.py", "test_moving.py"),
    "broker/revocations": ("test_revoke.py",),
    "broker/secret": ("test_secret.py", "faults/test_secret_change.py"),
    "broker/secret_key": ("test_secret.py", "faults/test_secret_change.py"),
    "broker/signature": ("faults/test_forged.py", "faults/test_foreign.py", "test_peers.py"),
    "broker/topics": ("test_redis.py", "test_pattern_limits.py", "test_moving.py"),
    "broker/wire": ("test_peers.py", "test_moving.py", "faults/test_mixed.py"),
    "broker/server_identity": ("faults/test_silent_failover.py", "test_redis.py", "test_embedded.py"),
}
"""By package or module, the files that concern it, the likeliest first: all would take minutes for each mutant."""
_FORMS = "not hypercorn and not granian and not portable"
"""The changed code is the same in all forms of the gateway."""
_SECONDS = 600.0


def tests_for(mutant: str) -> tuple[str, ...]:
    """The files with the live tests that concern a mutant."""
    module = module_of(mutant)
    files = _TESTS.get(module) or _TESTS.get(module.partition("/")[0]) or _STREAMS
    return tuple([f"tests/live/{file}" for file in files])


def try_on_live_tests(outcomes: Outcomes, mutants: Iterable[str]) -> None:
    """Try these mutants, one after the other, each until the first test that fails.

    Raises:
        SystemExit: the tests fail without a mutant, too, so they say nothing about one.
    """
    sound: set[tuple[str, ...]] = set()
    for mutant in mutants:
        tests = tests_for(mutant)
        if tests not in sound and _fail(tests, "") and _fail(tests, ""):
            raise SystemExit(f"without a mutant, some of these fail in {COPY}/, too: {' '.join(tests)}")
        sound.add(tests)
        began = time.monotonic()
        # Twice, here and above: a test that fails now and then is no evidence.
        failed = _fail(tests, mutant) and _fail(tests, mutant)
        outcomes.note("live", [(mutant, KILLED if failed else SURVIVED)])
        print(f"{mutant}: {outcomes.on(mutant, 'live')} after {time.monotonic() - began:.0f} s", flush=True)


def _fail(tests: Iterable[str], mutant: str) -> bool:
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no", "-k", _FORMS,
        *tests,
    ]  # fmt: skip
    with TemporaryFile() as output:
        running = subprocess.Popen(
            command, cwd=COPY, env={**os.environ, "MUTANT_UNDER_TEST": mutant}, stdout=output, stderr=output
        )
        try:
            return running.wait(_SECONDS) != 0
        except subprocess.TimeoutExpired:
            running.terminate()
            running.wait()
            return True
