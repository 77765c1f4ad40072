"""Heavy work: so many at once, so many wait, and nobody waits forever."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.fanout.gate import Gate
from gateway.fanout.turned_away import TurnedAway

pytestmark = pytest.mark.anyio


async def test_so_many_inside_and_so_many_in_front() -> None:
    gate = Gate(2, 1, 60.0)
    order: list[str] = []

    async def work() -> None:
        async with gate.enter():
            order.append("in")

    async with AsyncExitStack() as inside:
        for _ in range(2):
            await inside.enter_async_context(gate.enter())
        assert (gate.inside, gate.waiting) == (2, 0)
        waits = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert (gate.inside, gate.waiting) == (2, 1)
        with pytest.raises(TurnedAway) as refused:
            await work()
        assert refused.value.reason == "busy"
        assert order == []
    await waits
    assert order == ["in"]
    assert (gate.inside, gate.waiting) == (0, 0)


async def test_who_waits_for_too_long_is_turned_away() -> None:
    gate = Gate(1, 5, 0.01)
    async with gate.enter():
        with pytest.raises(TurnedAway) as refused:
            async with gate.enter():
                pass
    assert refused.value.reason == "busy"
    assert (gate.inside, gate.waiting) == (0, 0)
    async with gate.enter():
        assert gate.inside == 1
