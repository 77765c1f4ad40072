"""Which streams have lived long enough."""

import random
from collections.abc import Callable

from gateway.fanout.subscriber import Subscriber


class Ages:
    """Streams by the second in which they are to end.

    Args:
        max_age: seconds, give or take a tenth, so that those who came together don't leave together; 0: forever.
        clock: event loop time.
    """

    def __init__(self, max_age: float, clock: Callable[[], float]) -> None:
        self._max_age = max_age
        self._clock = clock
        self._by_second: dict[int, set[Subscriber]] = {}
        self._second_of: dict[Subscriber, int] = {}
        self._next = int(clock())

    def add(self, subscriber: Subscriber) -> None:
        if self._max_age:
            second = max(int(self._clock() + self._max_age * random.uniform(0.9, 1.1)), self._next)
            self._second_of[subscriber] = second
            self._by_second.setdefault(second, set()).add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        second = self._second_of.pop(subscriber, None)
        if second is not None and second in self._by_second:
            self._by_second[second].discard(subscriber)

    def due(self) -> list[Subscriber]:
        """Those whose time has come."""
        if not self._max_age:
            return []
        due: list[Subscriber] = []
        now = int(self._clock())
        while self._next <= now:
            due += self._by_second.pop(self._next, ())
            self._next += 1
        return due
