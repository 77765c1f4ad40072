"""A worker may open no more files."""

import os
import subprocess
import time

from chaos.row import Row
from chaos.stage import Stage


def worker_without_descriptors(stage: Stage) -> None:
    """A third of all clients come back again and again, to a worker that may not even have the files it had."""
    worker = stage.victim()
    soft, hard = _file_limit(worker.pid)
    # nginx evens the streams out as clients come back: a worker that has more than its share would never get there.
    streams = int(worker.metric("gateway_streams"))
    share = stage.plan.streams // len(stage.workers)
    most = _files(worker.pid) - streams + min(streams, share) * 4 // 5
    _set_file_limit(worker.pid, most, hard)
    began, short = time.monotonic(), 0
    try:
        for _ in range(10):
            stage.cut(0.3)
            stage.play(0.4)
            short += _files(worker.pid) >= most
    finally:
        _set_file_limit(worker.pid, soft, hard)
    stage.notes.append(f"for {time.monotonic() - began:.0f} s one worker might open {most} files, not {soft}")
    if not short:
        stage.faults.append("the worker never ran out of descriptors: the row shows nothing")


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _file_limit(pid: int) -> tuple[int, int]:
    words = subprocess.run(
        ["prlimit", "--nofile", "--raw", "--noheadings", "--output", "SOFT,HARD", "--pid", str(pid)],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    return int(words[0]), int(words[1])


def _set_file_limit(pid: int, soft: int, hard: int) -> None:
    subprocess.run(["prlimit", f"--nofile={soft}:{hard}", "--pid", str(pid)], check=True)


DESCRIPTORS = Row("worker out of descriptors", worker_without_descriptors)
