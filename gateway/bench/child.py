"""The command's end of the talk with a reader or the publisher."""

import asyncio
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import gateway
from gateway.bench.errors import BenchError

_LINE_BYTES = 1 << 26  # a report holds a histogram, a plan the requests of all channels
_SOURCE = str(Path(gateway.__file__).parent.parent)


def environment(**changes: str) -> dict[str, str]:
    """The environment for a child, in which this very package can be imported from any directory."""
    path = os.pathsep.join(filter(None, (_SOURCE, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}


class Child:
    """A helper process; an async context manager that leaves nothing behind.

    Args:
        module: `reader` or `publisher`.
        plan: its first message.
        cores: where it may run.
    """

    def __init__(self, module: str, plan: dict[str, Any], cores: Collection[int]) -> None:
        self._module = module
        self._plan = plan
        self._cores = cores
        self._messages: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.status: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process
        self._listener: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"gateway.bench.{self._module}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for the command, which then ends its children in order
            limit=_LINE_BYTES,
        )
        os.sched_setaffinity(self._process.pid, self._cores)
        self._listener = asyncio.create_task(self._listen())
        try:
            await self.send(**self._plan)
            await self.receive("ready")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._listener
        await self._process.wait()

    async def send(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        try:
            await self._process.stdin.drain()
        except ConnectionError:
            raise self._gone() from None

    async def receive(self, kind: str, patience: float | None = 60.0) -> dict[str, Any]:
        """The next message of this kind, if it comes within `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                message = await self._queue(kind).get()
        except TimeoutError:
            raise BenchError(f"The {self._module} process did not answer for {patience} s.") from None
        if message.get("kind") != kind:
            raise BenchError(message.get("reason") or str(self._gone()))
        return message

    async def ask(self, order: str, answer: str, **details: Any) -> dict[str, Any]:
        """Send an order and wait for its answer."""
        await self.send(do=order, **details)
        return await self.receive(answer)

    def _queue(self, kind: str) -> asyncio.Queue[dict[str, Any]]:
        return self._messages.setdefault(kind, asyncio.Queue())

    def _gone(self) -> BenchError:
        return BenchError(f"The {self._module} process ended before its work was done.")

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        failure: dict[str, Any] = {}
        async for line in self._process.stdout:
            message = json.loads(line)
            match message["kind"]:
                case "status":
                    self.status = message
                case "failed":
                    failure = message
                case kind:
                    self._queue(kind).put_nowait(message)
        for kind in ("ready", "opening", "opened", "begun", "report"):  # nobody may wait for ever
            self._queue(kind).put_nowait(failure)
