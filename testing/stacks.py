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
    if form.server.startswith("hypercorn"):
        workers = "0" if form.server == "hypercorn-alone" else "1"  # 0: in its own process
        worker.command = [
            sys.executable, "-m", "hypercorn", "-b", address, "-w", workers, "gateway.app:create_app()",
        ]  # fmt: skip
    elif form.server == "granian":
        worker.command = [
            sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--host", "127.0.0.1",
            "--port", str(worker.port), "gateway.app:create_app",
        ]  # fmt: skip
    elif form.server == "uvicorn":
        worker.command = uvicorn_command("gateway.app:create_app", worker.port)
    return worker


def uvicorn_command(factory: str, port: int) -> list[str]:
    """uvicorn as it comes, serving the application that a factory makes."""
    return [sys.executable, "-m", "uvicorn", "--factory", factory, "--host", "127.0.0.1", "--port", str(port)]
