"""Work for several is done once, and not for nobody."""

import asyncio

import pytest

from gateway.fanout.shared_work import SharedWork

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """What is begun, and whether it was stopped."""

    def __init__(self) -> None:
        self.begun = 0
        self.stopped = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return self.begun


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_done_once_and_again_when_it_is_over() -> None:
    shared: SharedWork[int] = SharedWork()
    work = Work()
    waiting = [asyncio.create_task(shared.result("a", work)) for _ in range(3)]
    await _turns()
    assert "a" in shared
    work.gate.set()
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert "a" not in shared
    assert await shared.result("a", work) == 2


async def test_it_stops_when_the_last_one_leaves() -> None:
    shared: SharedWork[int] = SharedWork()
    work = Work()
    first, second = (asyncio.create_task(shared.result("a", work)) for _ in range(2))
    await _turns()
    first.cancel()
    await _turns()
    assert (work.begun, work.stopped) == (1, 0), "the other still waits"
    second.cancel()
    third = asyncio.create_task(shared.result("a", work))  # must not get what is being stopped
    await _turns()
    assert (work.begun, work.stopped) == (2, 1)
    work.gate.set()
    assert await third == 2


async def test_all_learn_of_its_error() -> None:
    shared: SharedWork[int] = SharedWork()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError

    results = await asyncio.gather(*[shared.result("a", fail) for _ in range(2)], return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError]
    assert "a" not in shared
