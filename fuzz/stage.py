"""A worker and its Redis, and what can be seen of them from outside."""

import json
import re
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

from gateway.bench.usage import proportional_bytes
from gateway.broker.signature import Signer
from testing.http import metric, metrics
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import DEADLINE, wait_until

SECRET = "the-secret-of-the-fuzzers"
SETTINGS: dict[str, Any] = {
    "allowed_patterns": "*",
    "linger": 0.2,
    "secret": SECRET,
    "cors_origins": "https://app.example",
    "history_events": 20_000,
    "queue_events": 10_000,
    "retry_busy": 1,
}
"""The same for all targets, which add their own."""
MEMORY_BOUND = 200 * 1_048_576
"""Bytes that a worker may take after a target more than before it: what its rings and pools may hold."""
_TROUBLE = re.compile(r"Traceback \(most recent call last\)|was never (?:retrieved|awaited)|\b(?:CRITICAL|FATAL)\b")
_TAKEN_OVER_SECONDS = 60.0
"""For so long a worker stays subscribed to channels that another one has asked it to take over."""
_GAUGES = (
    *("streams", "connections", "channels", "patterns", "tasks", "body_bytes", "queued_streams", "queued_events"),
    *("queued_bytes", "unsent_bytes", "replay_bytes", "replays_running", "replays_waiting"),
)


class State(NamedTuple):
    """What a worker holds; at rest always the same.

    Attributes:
        gauges: of /metrics, by name.
        files: open descriptors, without the connections to Redis: a pool keeps those for the next command.
    """

    gauges: dict[str, float]
    files: int


class Stage(AbstractContextManager["Stage"]):
    """One worker with a Redis of its own.

    Args:
        directory: for logs.
        settings: of the worker, beside `SETTINGS`.

    Attributes:
        signer: signs as the workers do.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._stack = ExitStack()
        self.directory = directory
        self._settings = {**SETTINGS, **settings}
        self._read = 0
        self.signer = Signer()
        self.signer.adopt(SECRET.encode())

    def __enter__(self) -> Self:
        self.redis = self._stack.enter_context(RedisServer(self.directory))
        self.worker = self._stack.enter_context(Worker(self.directory, self.redis.url, **self._settings))
        return self

    def warm_up(self) -> State:
        """Have it serve once, and say what the worker holds at rest."""
        with self.redis.client() as client:
            wait_until(lambda: client.function_list("gateway_*"), "the functions are there")
        self.serve()
        wait_until(lambda: not metric(self.worker, "channels"), "nothing is listened to")
        return self.state()

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def enter(self, context: AbstractContextManager[Any]) -> Any:
        """Keep something open for as long as the stage."""
        return self._stack.enter_context(context)

    def signed(self, channel: bytes, message: bytes) -> bytes:
        """As workers send it to each other."""
        return self.signer.sign(channel, message) + b" " + message

    def troubles(self) -> list[str]:
        """What the worker has logged since the last call that it must never log."""
        with self.worker.log.open("rb") as log:
            log.seek(self._read)
            text = log.read().decode(errors="replace")
            self._read = log.tell()
        found = [text[match.start() :][:1500] for match in _TROUBLE.finditer(text)]
        return found if self.worker.alive else [*found, "the worker is gone: " + text[-1500:]]

    def state(self) -> State:
        """What it holds just now."""
        held = metrics(self.worker)
        process = psutil.Process(self.worker.pid)
        to_redis = sum(bool(each.raddr) and each.raddr.port == self.redis.port for each in process.net_connections())
        return State({name: held[name] for name in _GAUGES}, process.num_fds() - to_redis)

    def memory(self) -> int:
        return proportional_bytes([self.worker.pid])

    def wait_at_rest(self, rest: State) -> str:
        """Until the worker holds no more than it held at rest; says what is left if that doesn't come."""
        now = rest

        def is_at_rest() -> bool:
            nonlocal now
            now = self.state()
            return now.files <= rest.files and all(value <= rest.gauges[name] for name, value in now.gauges.items())

        try:
            wait_until(is_at_rest, "the worker at rest", _TAKEN_OVER_SECONDS + DEADLINE)
        except AssertionError:
            left = {name: value for name, value in now.gauges.items() if value > rest.gauges[name]}
            return f"left behind: {left}, {now.files - rest.files} files"
        return ""

    def serve(self) -> None:
        """Open a stream, and have an event delivered.

        Raises:
            Exception: it was not.
        """
        with open_stream(self.worker.url, "fuzz-alive") as stream, self.redis.client() as client:
            client.publish("fuzz-alive", "alive")
            assert stream.next().data == "alive"


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
