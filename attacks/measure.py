"""What the healthy clients of a worker notice, and what the worker takes."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from gateway.bench.usage import proportional_bytes
from testing.http import metrics
from testing.servers import RedisServer, Worker

STREAMS = 200
RATE = 50


@dataclass(frozen=True)
class Health:
    """Of clients that do nothing wrong.

    Attributes:
        p99: from publishing to arrival, in ms.
        lost: events they should have had, and were sent twice or out of order.
        closed: streams that ended.
    """

    p99: float
    lost: int
    closed: int


def health(worker: Worker, redis: RedisServer, seconds: float, headers: Sequence[str] = ()) -> Health:
    """Open streams on a channel that isn't attacked, publish, and reconcile.

    Args:
        seconds: of publishing.
        headers: of the requests for streams.
    """
    command = [
        sys.executable, "-m", "gateway", "bench", "--url", worker.url, "--publish-redis-url", redis.url,
        "--streams", str(STREAMS), "--rate", str(RATE), "--duration", str(seconds), "--json",
        *(word for header in headers for word in ("--header", header)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    try:
        result = json.loads(done.stdout)["result"]
    except (ValueError, KeyError):
        raise RuntimeError(
            f"the healthy clients could not be measured: {done.stdout}{done.stderr}{_ended(worker)}\n{worker.output}"
        ) from None
    wrong = result["lost"] + result["duplicates"] + result["out_of_order"]
    return Health(result["latency_ms"]["p99"], wrong, result["closed"])


def _ended(worker: Worker) -> str:
    """Why the worker has ended streams, or not let them begin, and how many."""
    reasons = {
        name: count
        for name, count in metrics(worker).items()
        if name.startswith(("turned_away_total", "streams_closed_total")) and count
    }
    return str(reasons)


class Memory:
    """Watches a worker's memory while the block runs.

    Attributes:
        most: the most it was, in bytes (PSS).
    """

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, proportional_bytes([self._pid]))
            if self._over.wait(0.1):
                return
