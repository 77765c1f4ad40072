"""Noticing that another server is about to exit, where nothing else says so."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ExitSignal:
    """Calls a function when the process is told to exit, and leaves the rest to the handlers that are there.

    Granian, and hypercorn in one process, wait for the open responses to end and only then end the lifespan, so a
    stream that waits for that would keep the process forever. A signal without a handler stays without, and uvicorn
    (ours or any) is left alone: on it streams learn of the exit in other ways.
    """

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """From now on. Does nothing outside of the main thread, where signals don't arrive."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if not callable(handler) or hasattr(getattr(handler, "__self__", None), "should_exit"):
                continue
            if handler is signal.default_int_handler:
                continue
            # Event loops hear of signals through their wakeup descriptor, whatever the handler is.
            self._before[number] = handler
            signal.signal(number, self._handle)

    def stop(self) -> None:
        """Put back what was there before."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._on_exit)
        self._before[signal.Signals(number)](number, frame)
