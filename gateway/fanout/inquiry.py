"""Finding out what streams need to begin."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from gateway.fanout.budget import Budget
from gateway.memory.catch_up import CatchUp, Find, Need, Older, Verify
from gateway.memory.listening import Listening
from gateway.memory.merge import Known
from gateway.memory.position import ZERO
from gateway.memory.replay import Limits, Replay
from gateway.ports import Clock, NotCounted, Past
from gateway.settings import Settings

_SEARCHES_PER_SECOND = 50.0
"""For ids of publishers that are not in the rings: all workers and Redis are asked, so what clients make up must not
cost more than that."""


class Inquiry:
    """Asks the clock, the other workers and Redis.

    Args:
        settings: how much is sent again to one client.
        listening: what has been heard.
        clock: Redis' clock.
        past: what others know.
        monotonic: event loop time.
    """

    def __init__(
        self, settings: Settings, listening: Listening, clock: Clock, past: Past, monotonic: Callable[[], float]
    ) -> None:
        self._limits = Limits(settings.replay_events, settings.replay_bytes)
        self._listening = listening
        self._clock = clock
        self._past = past
        self._searches = Budget(_SEARCHES_PER_SECOND, monotonic)

    def plan(self, state: CatchUp) -> Replay | Need:
        """What was missed up to now; or what has to be found out to say it."""
        return state.plan(self._listening, self._limits, self._searches.take)

    async def hear_all(self) -> None:
        """Wait until everything has been heard that was published before now; not if Redis refuses to count."""
        with contextlib.suppress(NotCounted):
            await self._clock.verify()

    async def satisfy(self, needs: Sequence[tuple[CatchUp, Need]]) -> None:
        """Find out what several streams, or groups of them, need; together."""
        epoch = self._listening.epoch
        verifies = [need for _, need in needs if isinstance(need, Verify)]
        if verifies:
            # If Redis refuses to count, nothing can be compared, so nothing is waited for.
            with contextlib.suppress(NotCounted):
                await self._clock.verify(any(need.elsewhere for need in verifies))
        finds = [(state, need) for state, need in needs if isinstance(need, Find)]
        await asyncio.gather(*[self._find(state, need) for state, need in finds])
        for state, need in needs:
            state.tries += 1
            if isinstance(need, Verify):
                state.verified = True
            elif isinstance(need, Older):
                await self._older(state, need)
            if epoch != self._listening.epoch:
                state.forget()

    async def _find(self, state: CatchUp, need: Find) -> None:
        asking = [self._past.find(topic, hole, need.workers) for topic, hole in need.holes]
        found = await asyncio.gather(*asking, return_exceptions=True)
        for (topic, hole), kept in zip(need.holes, found, strict=True):
            if not isinstance(kept, BaseException):  # else it is asked for again, a few times
                state.found.setdefault(topic, []).append(Known(hole.position, hole.end, kept))

    async def _older(self, state: CatchUp, need: Older) -> None:
        era = self._listening.era
        ends = {topic: topic.position(era) if era is not None else ZERO for topic in state.topics}
        entries, state.cut = await self._past.newest(ends, need.count, need.previous)
        state.older = {topic: (entries[topic], end) for topic, end in ends.items()}
