"""Replays that take long: of Redis' history, or of more events than are encoded in one go."""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from gateway.fanout.beginning import Beginning, channels_over, gap_reasons
from gateway.fanout.encodings import Encoding
from gateway.fanout.gate import Gate
from gateway.fanout.inquiry import Inquiry
from gateway.fanout.prepared import Prepared
from gateway.fanout.shared_work import SharedWork
from gateway.fanout.turned_away import TurnedAway
from gateway.fanout.unsent import Unsent
from gateway.memory.catch_up import CatchUp, Older, Wish
from gateway.memory.listening import Listening
from gateway.memory.replay import Limits, Replay, Replayed
from gateway.memory.topic import pin, unpin
from gateway.pace import Pace
from gateway.settings import Settings

IN_ONE_GO = Limits(1000, 131_072)
"""Of a replay that is made as soon as it is wanted: some 5 ms, and the kernel takes it from the worker at once."""
_PORTION = Limits(100, 65_536)
"""Of a longer one that is encoded in one turn of the event loop: a millisecond, several with gzip."""


class LongReplays:
    """Prepares them, a few at a time, once for all streams that want the same.

    Args:
        settings: limits and times.
        listening: what has been heard.
        flush: has everything delivered that has been counted.
        inquiry: finds out what is missing.
        unsent: the memory of all that waits for clients.
        pace: lets one be looked at in each turn of the loop.

    Attributes:
        gate: limits how many are prepared at the same time.
        room: limits how much of them is in memory.
    """

    def __init__(
        self,
        settings: Settings,
        listening: Listening,
        flush: Callable[[], None],
        inquiry: Inquiry,
        unsent: Unsent,
        pace: Pace,
    ) -> None:
        self._listening = listening
        self._flush = flush
        self._inquiry = inquiry
        self._pace = pace
        self.gate = Gate(settings.replays_at_once, settings.replays_waiting, settings.subscribe_timeout)
        self.room = Unsent(settings.replay_total_bytes, unsent)
        self._preparing: SharedWork[Prepared | str | None] = SharedWork()
        self._prepared: dict[tuple[object, ...], Prepared] = {}
        # Also those that are in memory because somebody hasn't read them yet: they cost nothing more.
        self._unread: WeakValueDictionary[tuple[object, ...], Prepared] = WeakValueDictionary()

    def key(self, beginning: Beginning) -> tuple[object, ...]:
        """What streams have in common that want the same."""
        wish = beginning.state.wish
        epoch = self._listening.epoch
        return beginning.topics, wish.last_event_id, wish.history, wish.new, wish.proof, beginning.encoding, epoch

    def __contains__(self, key: tuple[object, ...]) -> bool:
        """Whether it is there, or being prepared."""
        return key in self._unread or key in self._preparing

    def sweep(self) -> None:
        """Forget what nobody reads; to be called every second or so."""
        self._prepared.clear()

    async def prepare(self, beginning: Beginning) -> Prepared | None:
        """What a stream begins with, up to now; None if the connection to Redis was lost meanwhile.

        Raises:
            TurnedAway: too many wait for the same, or too much of it is in memory.
        """
        key = self.key(beginning)
        if (known := self._unread.get(key)) is not None and self._goes_on(beginning.state, known):
            return known
        state, encoding = beginning.state, beginning.encoding
        prepared = await self._preparing.result(key, lambda: self._prepare_at_the_gate(state, encoding))
        if isinstance(prepared, str):
            raise TurnedAway(prepared)
        if prepared is not None and prepared.events:
            self._prepared[key] = self._unread[key] = prepared
        return prepared

    def _goes_on(self, state: CatchUp, prepared: Prepared) -> bool:
        """Whether the rings hold all that came since: nobody has pinned them."""
        if not all(topic.heard for topic in state.topics):
            return False
        self._flush()
        following = CatchUp(state.topics, Wish(prepared.left_at))
        return isinstance(self._inquiry.plan(following), Replay)

    async def _prepare_at_the_gate(self, state: CatchUp, encoding: Encoding) -> Prepared | str | None:
        """As `prepare`; the reason if it is refused: an error would keep everything that was read so far."""
        try:
            async with self.gate.enter():
                pin(state.topics)
                try:
                    return await self._read_and_encoded(state, encoding)
                finally:
                    unpin(state.topics)
        except TurnedAway as refusal:
            return refusal.reason

    async def _read_and_encoded(self, state: CatchUp, encoding: Encoding) -> Prepared | None:
        while True:
            await self._pace.turn()
            if not all(topic.heard for topic in state.topics):
                return None
            self._flush()
            step = self._inquiry.plan(state)
            if isinstance(step, Replay):
                left_at = self._listening.id_of(state.topics, state.suffix)
                return await self._encoded(step, left_at, encoding)
            if isinstance(step, Older) and not _is_short(step, state):
                self._make_room()
            await self._inquiry.satisfy([(state, step)])

    def _make_room(self) -> None:
        """Room for another piece.

        Those that have begun keep theirs: they get on with every piece, and would only come back for the rest. Those
        that don't get on are ended after `stall_timeout`.

        Raises:
            TurnedAway: there is none.
        """
        if self.room.full:
            self._prepared.clear()
        if self.room.full:
            raise TurnedAway("busy")

    async def _encoded(self, replay: Replay, left_at: str, encoding: Encoding) -> Prepared:
        """Encode a replay in portions: meanwhile the others have their turns."""
        prepared = Prepared(self.room, left_at)
        portion: list[Replayed] = []
        size = 0
        for each in replay:
            portion.append(each)
            size += each.event.size + len(each.id or "")
            if len(portion) < _PORTION.events and size < _PORTION.bytes:
                continue
            self._add_portion(prepared, portion, encoding)
            portion, size = [], 0
            await asyncio.sleep(0)
        if portion:
            self._add_portion(prepared, portion, encoding)
        return prepared

    def _add_portion(self, prepared: Prepared, portion: list[Replayed], encoding: Encoding) -> None:
        self._make_room()
        prepared.add(encoding.encode(portion))
        prepared.events += len(portion)
        prepared.gaps += gap_reasons(portion)
        prepared.ends |= channels_over(portion)


def _is_short(need: Older, state: CatchUp) -> bool:
    return 0 < need.count * len(state.topics) <= IN_ONE_GO.events
