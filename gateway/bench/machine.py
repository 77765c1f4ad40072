"""What a benchmark needs of the machine: cores of its own, open files, an orderly end."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SPARE_DESCRIPTORS = 100
"""What a process needs besides its streams, generously."""


def descriptors() -> int:
    """How many files a process may open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1_000_000


def readers(streams: int) -> int:
    """How many reading processes so many streams need."""
    return -(-streams // (descriptors() - SPARE_DESCRIPTORS))


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM acts like Ctrl-C; by default it would leave the servers we started behind.

    Both are heeded even where a shell has told its background jobs to ignore Ctrl-C.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    interrupt_before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt_before)


@contextmanager
def split_cores() -> Iterator[tuple[set[int], set[int]]]:
    """One core for the server and the others for all else, this process included; one core is shared."""
    ours = os.sched_getaffinity(0)
    first, *others = sorted(ours)
    load_cores = set(others or [first])
    os.sched_setaffinity(0, load_cores)
    try:
        yield {first}, load_cores
    finally:
        os.sched_setaffinity(0, ours)
