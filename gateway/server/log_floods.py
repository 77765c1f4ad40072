"""What clients can cause as often as they like doesn't fill the log."""

import logging
import time

from gateway.metrics import Metrics
from gateway.throttle import Throttle

_PERIOD = 1.0
"""Seconds between two lines of the same kind."""


class LogFloods(logging.Filter):
    """Lets one line of each kind through per second, with the number of those held back before it; counts all.

    A kind is a place in the code together with an exception's type, so there are few. For loggers of libraries that
    say one line for each bad request; each logger gets a filter of its own.
    """

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics
        self._throttle = Throttle(_PERIOD, time.monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        self._metrics.warnings[record.name] += 1
        kind = f"{record.pathname}:{record.lineno}"
        if record.exc_info and record.exc_info[0] is not None:
            kind += f" {record.exc_info[0].__qualname__}"
        suppressed = self._throttle.allow(kind)
        if suppressed:
            record.msg = f"{record.getMessage().rstrip()} ({suppressed} more like this before)"
            record.args = None
        return suppressed is not None
