"""Requests for ticks: many at once don't wait for each other."""

import asyncio
from typing import Any

import pytest

from gateway.broker.clock import TickClock
from gateway.broker.library import BEGINNING, Place, TickReply
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.tick import Tick
from gateway.metrics import Metrics
from gateway.settings import Settings

_NOT_USED: Any = None

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Overtaken:
    """A Redis in which another worker's tick comes whenever this one is about to get its own."""

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        self.heard: list[TickClock] = []
        self.number = 10
        self.requests: list[Place] = []

    async def tick(self, channel: str, seen: Place, spacing_ms: int) -> TickReply:
        self.requests.append(seen)
        if seen != BEGINNING and seen.number < self.number:
            self.listening.tick(Tick(1, self.number, "server", {}))
            for clock in self.heard:
                clock.heard()
            return TickReply(1, self.number, 0)
        newest = self.number
        self.number += 1
        return TickReply(1, newest, 1)


async def _no_ping() -> None:
    """Nothing is sent while Redis counts."""


async def test_the_next_tick_serves_whoever_has_asked_before() -> None:
    listening = Listening(History(Settings(), lambda: 0.0))
    listening.connect("server")
    redis: Any = Overtaken(listening)
    clock = TickClock(redis, _NOT_USED, listening, b"ticks", b"own", 1.0, Metrics(), lambda _: None)
    redis.heard.append(clock)
    running = asyncio.create_task(clock.run(_no_ping))
    try:
        async with asyncio.timeout(10):
            await clock.verify()
    finally:
        running.cancel()
    assert redis.requests[0] == BEGINNING
    assert Place(1, 10) in redis.requests, "any tick after the first request will do"
    assert listening.era is not None
