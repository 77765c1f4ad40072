"""The process that holds clients: `python -m chaos.fleet`."""

import asyncio
import gc
import random
import resource
from collections import deque
from typing import Any

import uvloop

from chaos.columns import Listener
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
                some = self._of(order["columns"])
                for source in random.sample(some, round(order["share"] * len(some))):
                    source.cut()
            case "leave":
                for source in self._of(order["columns"]):
                    source.leave()
            case "come back":
                for source in self._sources:
                    if source.away:
                        source.come_back()
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
            case "behind":
                tell("behind", count=self._behind(order["numbers"]))
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

    def _of(self, columns: list[str]) -> list[Source]:
        """The clients of these columns; none given: all."""
        return [source for source in self._sources if source.column in columns or not columns]

    def _open(self, host: str, port: int, column: str, listeners: list[dict[str, list[str]]], small: int) -> None:
        """One client for each listener, `small` of them with a small buffer."""
        for number, listener in enumerate(listeners):
            asked = Listener(**{name: tuple(values) for name, values in listener.items()})
            self._sources.append(Source(column, Target(host, port, asked), small=number < small))
            self._waiting.append(self._sources[-1])

    def _behind(self, numbers: dict[str, int]) -> int:
        """How many diaries have not reached these numbers, by channel."""
        return sum(
            diary.highest < numbers.get(channel, -1)
            for source in self._sources
            if source.state != "closed"
            for channel, diary in source.diaries.items()
        )

    def _status(self) -> dict[str, Any]:
        """How many are in which state."""
        states = [source.state for source in self._sources]
        return {
            "clients": len(states),
            "open": states.count("open"),
            "closed": states.count("closed"),
            "greeted": sum(source.greeted for source in self._sources),
            "opened": sum(source.opened for source in self._sources),
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
