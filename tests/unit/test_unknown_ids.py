"""Ids nobody knows."""

import asyncio
from collections.abc import Sequence

from gateway.broker.durable import Durable
from gateway.fanout.catch_up import CatchUp
from gateway.fanout.history import History
from gateway.fanout.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings


class _Nobody:
    """Peers that know nothing."""

    def __init__(self) -> None:
        self.asked = 0

    async def after(self, channels: Sequence[str], last_event_id: str) -> None:
        assert channels == ["news"]
        self.asked += 1
        await asyncio.sleep(0)


def test_ids_nobody_knows_are_asked_about_only_so_often() -> None:
    """All workers answer each question; anybody can make an id up."""

    async def play() -> None:
        settings = Settings()
        history = History(settings, lambda: 0.0)
        topics = (Topic("news", False),)
        history.open(topics[0])
        peers = _Nobody()
        catch_up = CatchUp(settings, history, Durable(settings), peers, _at_once, Metrics(), lambda: 0.0)
        for number in range(300):
            replays = await asyncio.gather(
                *[catch_up.after(topics, f"1790000000{number:03}-0badc0de") for _ in range(3)]
            )
            assert all(replay.gaps == 1 for replay in replays)
        assert peers.asked == 50

    asyncio.run(play())


async def _at_once() -> bool:
    return True
