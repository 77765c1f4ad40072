"""Waiting for a state, so that no test sleeps for luck."""

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE = 20.0
"""Seconds after which a state that did not come is a failure; generous, because CI machines stall."""


def wait_until(state: Callable[[], object], what: str, timeout: float = DEADLINE) -> None:
    """Return as soon as `state()` is true.

    Raises:
        AssertionError: `what` did not happen within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not state():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.01)


async def until(state: Callable[[], object | Awaitable[object]], what: str, timeout: float = DEADLINE) -> None:
    """`wait_until` inside an event loop; `state` may be a coroutine function."""
    end = time.monotonic() + timeout
    while True:
        answer = state()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(0.01)
