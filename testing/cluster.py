"""One Redis, three workers, and nginx in front of them."""

import re
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from testing.nginx import Nginx
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until

HASTY: dict[str, Any] = {"retry_min": 0.3, "retry_max": 0.6, "drain_window": 2}
"""Settings with short pauses, for tests that lose many workers; nginx' own pauses are what they are."""


class Cluster:
    """A context manager; `revive` undoes what a test killed."""

    def __init__(self, directory: Path, *, production: bool = False, **settings: Any) -> None:
        self.redis = RedisServer(directory)
        self.workers = [Worker(directory, self.redis.url, **settings) for _ in range(3)]
        self.nginx = Nginx(directory, [worker.port for worker in self.workers], production=production)

    @property
    def url(self) -> str:
        return self.nginx.url

    def publish(self, channel: str, data: str | bytes) -> None:
        with self.redis.client() as client:
            client.publish(channel, data)

    def revive(self) -> None:
        dead = [worker.start(wait=False) for worker in self.workers if not worker.alive]
        for worker in dead:
            worker.wait_ready()

    def settle(self) -> None:
        """All workers up and nobody connected, whatever the test before did."""
        self.revive()
        wait_until(lambda: not any(streams(worker.url) for worker in self.workers), "no streams left")

    def __enter__(self) -> Self:
        try:
            self.redis.start()
            self.revive()
            self.nginx.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.nginx, *self.workers, self.redis):
            if process.alive:
                process.kill()


def streams(worker_url: str) -> int:
    """How many streams that worker has open, by its own account."""
    with urlopen(f"{worker_url}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    value = re.search(r"^gateway_streams(?:\{[^}]*\})? ([\d.e+]+)$", text, re.MULTILINE)
    assert value is not None, f"no gateway_streams in\n{text}"
    return int(float(value[1]))
