"""The process that holds clients: `python -m chaos.fleet`."""

import asyncio
import gc
import random
import resource
from collections import deque
from typing import Any

import uvloop

from chaos.orders import Order, orders, tell
from chaos.source import Source, Target

_STATUS_SECONDS = 0.05
_CONNECTING = 64
"""Clients on their way at once while a fleet opens; storms are what the faults are for."""


class Fleet:
    """Many clients, doing what the harness says."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._waiting: deque[Source] = deque()
        self._latencies: list[int] = []

    def obey(self, order: Order) -> None:
        match order.pop("do"):
            case "open":
                self._open(**order)
            case "cut":
                for source in random.sample(self._sources, round(order["share"] * len(self._sources))):
                    source.cut()
            case "stall":
                for source in self._small:
                    source.stall()
            case "resume":
                for source in self._small:
                    source.resume()
            case "begin":
                for source in self._sources:
                    source.begin()
            case "measure":
                self._latencies = []
                for source in self._sources:
                    source.latencies = None if source.small else self._latencies
            case "measured":
                for source in self._sources:
                    source.latencies = None
                tell("latencies", values=self._latencies)
            case "report":
                tell("report", clients=[source.report(order["until"]) for source in self._sources])

    async def follow(self) -> None:
        """Bring new clients on their way, and tell how all are."""
        while True:
            begun = len(self._sources) - len(self._waiting)
            under_way = begun - sum(1 for source in self._sources if source.opened or source.state == "closed")
            for _ in range(min(len(self._waiting), _CONNECTING - under_way)):
                self._waiting.popleft().connect()
            tell("status", **self._status())
            await asyncio.sleep(_STATUS_SECONDS)

    @property
    def _small(self) -> list[Source]:
        return [source for source in self._sources if source.small]

    def _open(self, host: str, port: int, column: str, channels: list[str], count: int, small: int) -> None:
        """`count` clients, `small` of them with a small buffer."""
        target = Target(host, port, channels)
        new = [Source(column, target, small=number < small) for number in range(count)]
        self._sources += new
        self._waiting += new

    def _status(self) -> dict[str, Any]:
        """How many are in which state, and the number that everybody on a channel has reached."""
        states = [source.state for source in self._sources]
        reached: dict[str, int] = {}
        for source in self._sources:
            if source.state != "closed":
                for channel, diary in source.diaries.items():
                    reached[channel] = min(diary.highest, reached.get(channel, diary.highest))
        return {
            "clients": len(states),
            "open": states.count("open"),
            "closed": states.count("closed"),
            "opened": sum(source.opened for source in self._sources),
            "reached": reached,
        }


async def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A walk over thousands of clients would show up as somebody else's latency.
    gc.disable()
    fleet = Fleet()
    following = asyncio.create_task(fleet.follow())
    async for order in orders():
        fleet.obey(order)
    following.cancel()


if __name__ == "__main__":
    uvloop.run(main())
