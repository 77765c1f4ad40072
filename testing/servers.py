"""A real redis-server and real gateway workers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import redis

from testing.process import Process, accepts, free_port
from testing.waiting import DEADLINE, wait_until


class RedisServer(Process):
    """redis-server without persistence on a port of its own; `start` again after `kill` brings it back."""

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", directory, *options],
            directory / f"redis-{self.port}.log",
        )  # fmt: skip

    def start(self) -> Self:
        super().start()
        wait_until(lambda: accepts(self.port), f"redis-server on {self.port}\n{self.output}")
        return self

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def limited_url(self, channels: Sequence[str] = ("*",), without: Sequence[str] = ()) -> str:
        """The URL for a user (the same one at each call) who may do everything (ACL), but for some commands.

        Args:
            channels: globs of those on which it may publish and listen.
            without: commands or categories, as `fcall`.
        """
        with self.client() as client:
            client.acl_setuser(
                "limited", enabled=True, reset=True, nopass=True, keys=["*"], channels=channels,
                commands=["+@all", *(f"-{command}" for command in without)],
            )  # fmt: skip
        return self.url.replace("//", "//limited:none@")


class Worker(Process):
    """`gateway run` in a process of its own.

    Args:
        directory: where its log goes.
        redis_url: its Redis.
        settings: further settings by field name.
    """

    def __init__(self, directory: Path, redis_url: str, port: int = 0, **settings: Any) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = {"redis_url": redis_url, "port": self.port, "http_publish": True, **settings}
        super().__init__(
            [sys.executable, "-m", "gateway", "run"],
            directory / f"worker-{self.port}.log",
            {f"GATEWAY_{name.upper()}": _text(value) for name, value in given.items()},
        )

    def ready(self) -> bool:
        """Whether /readyz says 200."""
        try:
            with urlopen(self.url + "/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def start(self, wait: bool = True) -> Self:
        super().start()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout: float = DEADLINE) -> None:
        wait_until(lambda: self.ready() or not self.alive, f"worker on {self.port} ready", timeout)
        assert self.alive, self.output


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
