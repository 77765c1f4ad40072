"""A task that must not end has ended: nothing may look healthy and do nothing."""

import asyncio
import logging
import signal

import pytest

from gateway.background import Background


class _Job:
    """Fails until it has been begun so many times."""

    def __init__(self, failures: int) -> None:
        self.begun = 0
        self.lasts = asyncio.Event()
        self._failures = failures

    async def run(self) -> None:
        self.begun += 1
        if self.begun <= self._failures:
            raise ValueError("out of luck")
        self.lasts.set()
        await asyncio.Event().wait()


def test_in_an_application_of_others_it_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        stopped: list[bool] = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.append, True)
        unlucky, lucky = _Job(2), _Job(0)
        background = Background({"unlucky": unlucky.run, "lucky": lucky.run}, pause=0.001)
        background.start(owns_process=False)
        async with asyncio.timeout(20):
            await unlucky.lasts.wait()
        assert (unlucky.begun, lucky.begun) == (3, 1)
        assert caplog.text.count("the task unlucky has ended; starting it again") == 2
        assert "out of luck" in caplog.text
        assert not stopped
        before = asyncio.all_tasks()
        await background.stop()
        assert len(before - asyncio.all_tasks()) == 2

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(play())


def test_a_process_of_its_own_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        job = _Job(1)
        background = Background({"unlucky": job.run}, pause=0.001)
        background.start(owns_process=True)
        async with asyncio.timeout(20):
            await stopped.wait()
        await background.stop()
        assert job.begun == 1

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(play())
    assert "the task unlucky has ended; stopping" in caplog.text


def test_what_is_stopped_stays_stopped() -> None:
    async def play() -> None:
        job = _Job(100)
        background = Background({"unlucky": job.run}, pause=0.0)
        background.start(owns_process=False)
        await asyncio.sleep(0)
        await background.stop()
        begun = job.begun
        for _ in range(10):
            await asyncio.sleep(0)
        assert job.begun == begun

    asyncio.run(play())
