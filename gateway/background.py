"""The tasks of a gateway that never end by themselves."""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

logger = logging.getLogger(__name__)

_PAUSE = 1.0


class Background:
    """Runs them, in the event loop.

    Args:
        jobs: by name, what makes each.
        pause: seconds until one that has failed is started again.
    """

    def __init__(self, jobs: Mapping[str, Callable[[], Coroutine[Any, Any, None]]], pause: float = _PAUSE) -> None:
        self._jobs = jobs
        self._pause = pause
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._owns_process = False
        self._stopping = False

    def start(self, owns_process: bool) -> None:
        """Start them all.

        Args:
            owns_process: the process is there for the gateway only. If a task fails, it is stopped (SIGTERM), to be
                restarted by whoever watches it: without that task it would look healthy and do nothing. An
                application that mounts the gateway has other work to do, and there the task is started again.
        """
        self._owns_process = owns_process
        for name in self._jobs:
            self._start(name)

    async def stop(self) -> None:
        """Cancel them, and wait until they have ended."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, name: str) -> None:
        if self._stopping:
            return
        task = self._tasks[name] = asyncio.create_task(self._jobs[name](), name=name)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._stopping:
            return
        name, error = task.get_name(), task.exception()
        if self._owns_process:
            logger.critical("the task %s has ended; stopping", name, exc_info=error)
            signal.raise_signal(signal.SIGTERM)
        else:
            logger.critical("the task %s has ended; starting it again", name, exc_info=error)
            asyncio.get_running_loop().call_later(self._pause, self._start, name)
