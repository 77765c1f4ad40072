"""What a worker remembers of what went by, within limits of count, size and age."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable
from typing import Any

from gateway.fanout.event import Event
from gateway.fanout.ids import DurableId, RingId, chain_hash, digest, parse_durable, unheard
from gateway.fanout.ring import Entry, Ring
from gateway.fanout.topic import Topic
from gateway.settings import Settings

_HASHES_REMEMBERED = 64
_ORDER_SLACK = 1000

_ENTRY_OVERHEAD = 600
"""Bytes an entry takes beside its frame: the objects and the index."""


class Chain:
    """One channel's last messages, as far as ids need them.

    It goes on over a lost connection: if all workers lost the same, their ids go on alike, and if one lost more, its
    next two ids are found nowhere, which is a gap and no harm.

    Attributes:
        durable: the newest durable id heard.
        plain: whether a message that is not durable was heard.
        mixed: whether both kinds were heard.
        unheard: how many of the two predecessors of the next message were not heard; while there are any, its id
            means nothing to other workers.
    """

    __slots__ = ("_before_last", "_last", "_times", "durable", "mixed", "plain", "unheard")

    def __init__(self) -> None:
        self.durable = DurableId(0, 0)
        self.plain = False
        self.mixed = False
        self.unheard = 2
        self._before_last = unheard()
        self._last = unheard()
        # When the latest hashes were given, so that no id is given twice.
        self._times: dict[str, int] = {}

    def next_id(self, channel: bytes, payload: bytes, now_ms: int) -> RingId:
        """The id of the next message."""
        this = digest(payload)
        hash_ = chain_hash(channel, self._before_last, self._last, this)
        self._before_last, self._last = self._last, this
        self.unheard = max(0, self.unheard - 1)
        now_ms = max(now_ms, self._times.pop(hash_, 0) + 1)
        self._times[hash_] = now_ms
        if len(self._times) > _HASHES_REMEMBERED:
            self._times = {hash_: given for hash_, given in self._times.items() if given >= now_ms}
        return RingId(now_ms, hash_)

    def saved(self) -> list[str | int | bool]:
        """All that the next ids depend on, for another worker."""
        return [self._before_last.hex(), self._last.hex(), self.unheard, str(self.durable), self.plain]

    def restore(self, saved: list[Any]) -> None:
        """Go on as the worker that has saved it."""
        before_last, last, self.unheard, durable, plain = saved
        self._before_last, self._last = bytes.fromhex(before_last), bytes.fromhex(last)
        self.durable = parse_durable(durable) or self.durable
        self.plain = bool(plain)


class History:
    """Keeps recent events in the rings of their topics, and gives plain ones their ids.

    Args:
        settings: the limits.
        clock: event loop time.
        on_mixed: told of a channel that carries durable messages and plain ones.

    Attributes:
        seq: the newest place in the order of the events this worker has received, and of what it began to listen to.
        clock: the newest durable id known, of any channel.
        heard: every durable message up to this id, on channels that were subscribed to, has been received.
        entries: how many entries all rings hold.
        clock_offset_ms: what to add to this machine's time to have Redis' time.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float], on_mixed: Callable[[str], None] = lambda _: None
    ) -> None:
        self.seq = 0
        self.entries = 0
        self._on_mixed = on_mixed
        self.clock = DurableId(0, 0)
        self.heard = DurableId(0, 0)
        self.clock_offset_ms = 0
        self.bytes = 0
        self._clock = clock
        self._events = settings.history_events
        self._ring_bytes = settings.history_bytes
        self._total_bytes = settings.history_total_bytes
        self._age = settings.history_age
        self._max_chains = settings.max_channels
        self._chains: OrderedDict[str, Chain] = OrderedDict()
        # All entries of all rings in the order they came, to find the oldest; those evicted meanwhile are skipped.
        self._order: deque[tuple[Ring, int, float]] = deque()

    @property
    def enabled(self) -> bool:
        return self._events > 0

    def open(self, topic: Topic) -> None:
        """Redis has confirmed the topic: from now on it is complete."""
        if topic.ring is None:
            self.begin()
            topic.ring = Ring(self.seq)

    def begin(self) -> None:
        """Something begins to be heard, which takes a place of its own in the order.

        Who has seen all that came until now may still have missed what was published before on what begins.
        """
        self.seq += 1

    def end_stretch(self, topics: Iterable[Topic]) -> None:
        """From now on the order in which those topics' events are kept is that in which they came."""
        for topic in topics:
            if topic.ring is not None and topic.ring.stretch is not None:
                topic.ring.stretch.end = self.seq

    def close(self, topic: Topic, others: Container[str]) -> None:
        """The topic was given up.

        Args:
            others: channels that are still listened to by their own names.
        """
        if topic.ring is not None:
            self._evict(topic.ring, self.seq, 0)
            topic.ring = None
        if not topic.is_pattern:
            self._chains.pop(topic.name, None)
            return
        for channel in [channel for channel in self._chains if channel not in others]:
            del self._chains[channel]

    def chain(self, channel: str) -> Chain:
        chain = self._chains.get(channel)
        if chain is None:
            chain = self._chains[channel] = Chain()
            if len(self._chains) > self._max_chains:
                self._chains.popitem(last=False)
        else:
            self._chains.move_to_end(channel)
        return chain

    def record(self, channel: str, topics: tuple[Topic, ...], event: Event, payload: bytes) -> Event | None:
        """Keep an event that has come in.

        Returns:
            The event with its id; None if it is a durable one that was had before.
        """
        chain = self.chain(channel)
        if event.durable is not None:
            if event.durable <= chain.durable:
                return None
            chain.durable = event.durable
            self.clock = max(self.clock, event.durable)
            self.heard = max(self.heard, event.durable)
        else:
            chain.plain = True
        if chain.plain and chain.durable.ms and not chain.mixed:
            chain.mixed = True
            self._on_mixed(channel)
        self.seq += 1
        if not self.enabled:
            for topic in topics:
                if topic.ring is not None:  # nothing is kept, so nothing may be taken for complete
                    topic.ring.since = self.seq
            return event
        now_ms = self.now_ms()
        means_nothing = chain.unheard > 0
        ring_id = chain.next_id(channel.encode(), payload, now_ms)
        if means_nothing:
            for topic in topics:
                if topic.ring is not None:
                    topic.ring.unsure_until_ms = ring_id.ms
        if event.id is None:
            event = event.with_id(str(ring_id), ring_id.hash)
        self.keep(channel, topics, event, ring_id.ms)
        return event

    def now_ms(self) -> int:
        """Redis' time, as far as this worker knows it."""
        return int(time.time() * 1000) + self.clock_offset_ms

    def keep(self, channel: str, topics: tuple[Topic, ...], event: Event, now_ms: int = 0) -> None:
        """Put the newest event into the rings of its topics."""
        if not self.enabled:
            return
        now = self._clock()
        entry = Entry(self.seq, channel, event, now_ms, now, 0)
        for topic in topics:
            self.put(topic, entry)
        self._evict_oldest(now)

    def put(self, topic: Topic, entry: Entry) -> None:
        """Put an entry into a topic's ring, within the ring's own limits."""
        ring = topic.ring
        if ring is None or not self.enabled:
            return
        entry = entry._replace(size=len(entry.event.frame) + _ENTRY_OVERHEAD)
        ring.append(entry)
        self.bytes += entry.size
        self.entries += 1
        self._order.append((ring, entry.seq, entry.time))
        while len(ring) > self._events or (ring.bytes > self._ring_bytes and len(ring) > 1):
            self.bytes -= ring.evict().size
            self.entries -= 1
        if len(self._order) > 2 * self.entries + _ORDER_SLACK:
            self._order = deque(each for each in self._order if each[0].since < each[1])

    def record_gap(self, topic: Topic, event: Event) -> None:
        """Keep a gap in its place, for those who resume from before it."""
        self.seq += 1
        self.keep(topic.name, (topic,), event, self.now_ms())

    def sweep(self) -> None:
        """Forget what is too old; called now and then for channels on which nothing comes any more."""
        self._evict_oldest(self._clock())

    def _evict_oldest(self, now: float) -> None:
        order = self._order
        while order and (self.bytes > self._total_bytes or order[0][2] < now - self._age):
            ring, seq, _ = order.popleft()
            # The newest stays however old it is: a client that has seen it has missed nothing.
            self._evict(ring, seq, 0 if self.bytes > self._total_bytes else 1)

    def _evict(self, ring: Ring, seq: int, keep: int) -> None:
        bytes_, entries = ring.bytes, len(ring)
        ring.evict_through(seq, keep)
        self.bytes -= bytes_ - ring.bytes
        self.entries -= entries - len(ring)
