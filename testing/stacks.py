"""The forms in which the gateway runs: delivery path, server, kind of Redis."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from testing.servers import Worker


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        delivery: the setting.
        server: `gateway` is `gateway run`; the others serve the ASGI application.
        embedded: with fakeredis instead of a real Redis.
    """

    delivery: str
    server: str = "gateway"
    embedded: bool = False

    def __str__(self) -> str:
        return f"{self.delivery}-{self.server}-{'embedded' if self.embedded else 'redis'}"


FORMS = [
    Form("direct"),
    Form("portable"),
    Form("direct", embedded=True),
    Form("portable", embedded=True),
    Form("portable", server="hypercorn"),
    Form("portable", server="granian"),
]


@dataclass(frozen=True)
class Stack:
    """A running worker with its Redis."""

    form: Form
    worker: Worker
    redis_url: str

    @property
    def url(self) -> str:
        return self.worker.url

    def publish(self, channel: str, payload: str | bytes) -> int:
        with redis.Redis.from_url(self.redis_url) as client:
            return int(client.publish(channel, payload))


def start_worker(form: Form, directory: Path, redis_url: str, **settings: Any) -> Worker:
    """A worker in that form, not started yet.

    Its queues are long, because tests read one stream after the other.
    """
    given = {"allowed_patterns": "*", "linger": 0.2, "queue_events": 10_000, **settings}
    if form.server == "gateway":
        given["delivery"] = form.delivery
    worker = Worker(directory, redis_url, **given)
    address = f"127.0.0.1:{worker.port}"
    if form.server == "hypercorn":
        worker.command = [sys.executable, "-m", "hypercorn", "-b", address, "gateway.app:create_app()"]
    elif form.server == "granian":
        worker.command = [
            sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--host", "127.0.0.1",
            "--port", str(worker.port), "gateway.app:create_app",
        ]  # fmt: skip
    return worker
