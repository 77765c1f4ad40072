"""Workers for the tests of faults. Each test names its channels after itself, so that files can share a Redis."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from testing.servers import RedisServer, Worker


class Start(Protocol):
    """Starts a worker that ends with the test."""

    def __call__(self, url: str = "", **settings: Any) -> Worker: ...


@pytest.fixture
def start(redis_server: RedisServer, tmp_path: Path) -> Iterator[Start]:
    """Starts workers, on the Redis that all tests share unless a URL is given; they end their streams at once."""
    with ExitStack() as stack:

        def start_one(url: str = "", **settings: Any) -> Worker:
            settings = {
                "drain_window": 0,
                # A stream on which nothing comes is to fail a test soon.
                "ping_interval": 0,
                "retry_min": 0.05,
                "retry_max": 0.1,
                "allowed_patterns": "*",
                **settings,
            }
            worker = Worker(tmp_path, url or redis_server.url, **settings)
            stack.callback(worker.kill)
            return worker.start()

        yield start_one
