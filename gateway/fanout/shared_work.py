"""Work that several wait for."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class _Work(Generic[Result]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Result]) -> None:
        self.task = task
        self.waiting = 0


class SharedWork(Generic[Result]):
    """Does the same work once for all who want it, and stops it when nobody does any more."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _Work[Result]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._under_way

    async def result(self, key: Hashable, begin: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What the work of that key gives, or raises; it begins if it isn't under way."""
        work = self._under_way.get(key)
        if work is None:
            work = self._under_way[key] = _Work(asyncio.create_task(begin()))
            work.task.add_done_callback(lambda task: self._done(key, task))
        work.waiting += 1
        try:
            await asyncio.wait((work.task,))  # who is cancelled here leaves it to the others
        finally:
            work.waiting -= 1
            if not work.waiting and not work.task.done():
                self._forget(key, work.task)
                work.task.cancel()
        return work.task.result()

    def _done(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # everybody who waited may have left; the loop would complain that nobody looked

    def _forget(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        if (work := self._under_way.get(key)) is not None and work.task is task:
            del self._under_way[key]
