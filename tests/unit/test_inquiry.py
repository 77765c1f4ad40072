"""The order in which channels that are new to a worker are asked about and opened."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from gateway.broker.inquiry import Inquiry
from gateway.fanout.contracts import Publication
from gateway.fanout.topic import Topic
from testing.waiting import until


class _Worker:
    """Everything an inquiry speaks to; writes down what it is told.

    Args:
        listeners: of each channel.
    """

    enabled = True

    def __init__(self, listeners: dict[str, int]) -> None:
        self.done: list[str] = []
        self.meanwhile: list[Topic] = []
        self._listeners = listeners
        self.inquiry = Inquiry(cast("Any", self), cast("Any", self), cast("Any", self), self.deliver)

    async def listeners(self, channels: Sequence[str]) -> list[int]:
        while self.meanwhile:
            self.inquiry.add(self.meanwhile.pop())
        return [self._listeners[name] for name in channels]

    async def ask(self, channels: Sequence[str], patience: float, on_back: Callable[[], None]) -> list[Any]:
        self.done.append(f"ask {','.join(channels)}")
        return []

    def deliver(self, batch: list[Publication]) -> None:
        self.done.append(f"deliver {len(batch)}")

    def take_over(self, topics: Sequence[Topic], answers: Iterable[Any]) -> set[str]:
        self.done.append(f"take over {','.join(topic.name for topic in topics)}")
        return set()

    def opened(self, topic: Topic) -> None:
        self.done.append(f"open {topic.name}")

    def caught_up(self, topics: Sequence[Topic]) -> None:
        pass


def _play(worker: _Worker, first: Topic, last: str) -> list[str]:
    async def play() -> None:
        running = asyncio.create_task(worker.inquiry.run())
        worker.inquiry.add(first)
        await until(lambda: f"open {last}" in worker.done, "it is open")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(play())
    return worker.done


def test_nobody_is_asked_about_nothing() -> None:
    """Each question is waited for, while a client waits."""
    worker = _Worker({"alone": 1, "later": 1})
    worker.meanwhile.append(Topic("later", False))
    assert not [each for each in _play(worker, Topic("alone", False), "later") if each.startswith("ask")]


def test_what_has_come_on_other_channels_has_its_place_before_what_is_taken_over() -> None:
    """Else it would stand among events whose order says nothing about it, and a client be sent them a second time."""
    done = _play(_Worker({"news": 2}), Topic("news", False), "news")
    assert done[:4] == ["ask news", "deliver 0", "take over news", "open news"]
