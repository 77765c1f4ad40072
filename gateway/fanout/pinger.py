"""Comments that keep idle streams alive: one wheel, no timer per client."""

import asyncio
from collections.abc import Callable

from gateway.fanout.subscriber import Subscriber

_SLOTS_PER_INTERVAL = 16
_IDLE = 3600.0


class Pinger:
    """Sees to it that no stream is silent for longer than `interval`.

    A subscriber is looked at only when its silence could have become too long; whether something was sent
    meanwhile is read from its topics, so that deliveries note nothing per client.

    Args:
        interval: seconds; 0 never pings.
        clock: event loop time.
        last_delivery: when something was last delivered to a subscriber.

    Attributes:
        ping: sends a comment to a subscriber; nothing is sent before somebody has set it.
        pings: how many were sent.
    """

    def __init__(
        self, interval: float, clock: Callable[[], float], last_delivery: Callable[[Subscriber], float]
    ) -> None:
        self.ping: Callable[[Subscriber], None] = lambda _: None
        self._interval = interval
        self._last_delivery = last_delivery
        self._clock = clock
        self._step = interval / _SLOTS_PER_INTERVAL
        self._slots: dict[int, set[Subscriber]] = {}
        self._next = int(clock() / self._step) if interval else 0
        self.pings = 0

    def add(self, subscriber: Subscriber) -> None:
        if self._interval:
            self._schedule(subscriber, self._clock())

    def discard(self, subscriber: Subscriber) -> None:
        if subscriber.ping_slot is not None:  # its slot goes when its turn comes, even if nobody is left in it
            subscriber.ping_slot.discard(subscriber)
            subscriber.ping_slot = None

    async def run(self) -> None:
        """Turn the wheel forever."""
        while True:
            await asyncio.sleep(self._step or _IDLE)
            self.turn()

    def turn(self) -> None:
        """Ping whoever has been silent for too long by now."""
        if not self._interval:
            return
        now = self._clock()
        current = int(now / self._step)
        while self._next <= current:
            for subscriber in list(self._slots.pop(self._next, ())):
                if subscriber.closed is not None:
                    continue
                last = self._last_delivery(subscriber)
                if last <= now - self._interval + 2 * self._step:
                    self.ping(subscriber)
                    self.pings += 1
                    last = now
                self._schedule(subscriber, last)
            self._next += 1

    def _schedule(self, subscriber: Subscriber, last_sent: float) -> None:
        # Two steps early: the wheel turns in steps, and its own turn may come a step late.
        slot = max(int((last_sent + self._interval) / self._step) - 1, self._next + 1)
        # The set itself, which many share, and not its number, which each would have to itself.
        subscriber.ping_slot = self._slots.setdefault(slot, set())
        subscriber.ping_slot.add(subscriber)
