"""What streams are sent first: what they have missed, and `gateway.open`."""

import random
from collections import OrderedDict
from collections.abc import Callable

from gateway.fanout.beginning import Beginning, Ready, channels_over, gap_reasons
from gateway.fanout.encodings import Encoding
from gateway.fanout.in_band import ended, opened
from gateway.fanout.inquiry import Inquiry
from gateway.fanout.long_replays import IN_ONE_GO, LongReplays
from gateway.fanout.prepared import Prepared
from gateway.memory.catch_up import Find, Older, Verify
from gateway.memory.listening import Listening
from gateway.memory.place import NO_SUFFIX, Suffix
from gateway.memory.replay import Replay, Replayed
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.settings import Settings

_REMEMBERED = 64
_RETRIES = 256
"""Different reconnection times: close enough to each other that clients that come back do so evenly."""


class Replays:
    """Makes it once for streams that begin alike.

    Args:
        settings: times.
        listening: what has been heard.
        flush: has everything delivered that has been counted.
        inquiry: says what was missed.
        long: those that take long.
        metrics: where replays and gaps are counted.
    """

    def __init__(
        self,
        settings: Settings,
        listening: Listening,
        flush: Callable[[], None],
        inquiry: Inquiry,
        long: LongReplays,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._flush = flush
        self._inquiry = inquiry
        self._long = long
        self._metrics = metrics
        self._opens: dict[tuple[tuple[Topic, ...], Encoding], tuple[str, dict[int, bytes]]] = {}
        self._remembered: OrderedDict[tuple[object, ...], Ready] = OrderedDict()

    def step(self, beginning: Beginning) -> Ready | Verify | Find | None:
        """What a stream begins with, or what has to be found out to say it; who gets the former has to join at once.

        None: it takes long (`LongReplays.prepare`).
        """
        self._flush()
        key = self._long.key(beginning)
        if key in self._long:
            return None
        signature = (*key, self._listening.id_of(beginning.topics))
        remembered = self._remembered.get(signature)
        if remembered is not None:
            return remembered
        replay = self._inquiry.plan(beginning.state)
        if not isinstance(replay, Replay):
            return None if isinstance(replay, Older) else replay
        if not replay.is_within(IN_ONE_GO):
            return None
        ready = _ready(replay, beginning.encoding)
        if beginning.state.suffix.proof:  # nobody else gets it
            return ready
        self._remembered[signature] = ready
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return ready

    def is_long(self, beginning: Beginning) -> bool:
        """Whether `step` may take milliseconds; else it takes a few, at most."""
        return beginning.state.has_missed_more_than(IN_ONE_GO.events)

    def count(self, step: Ready | Prepared, streams: int = 1) -> None:
        """So many streams get it."""
        self._metrics.replayed += streams * (step.events - len(step.gaps))
        for reason in step.gaps if streams else ():
            self._metrics.gaps[reason] += streams

    def opened(self, topics: tuple[Topic, ...], encoding: Encoding, suffix: Suffix = NO_SUFFIX) -> bytes:
        """`gateway.open`: from here on the client has an id, whatever follows.

        Args:
            topics: of the stream.
            encoding: likewise.
            suffix: what its ids end with.
        """
        id_ = self._listening.id_of(topics, suffix)
        if suffix.proof:  # nobody else gets it
            retry = random.uniform(self._settings.retry_min, self._settings.retry_max)
            return encoding.encode([Replayed("", opened(topics, retry), id_)])
        key = (topics, encoding)
        known = self._opens.get(key)
        if known is None or known[0] != id_:
            if len(self._opens) >= _REMEMBERED:
                self._opens.clear()
            known = self._opens[key] = (id_, {})
        # When all come at once, only so many different pieces are made.
        number = int(random.random() * _RETRIES)
        piece = known[1].get(number)
        if piece is None:
            settings = self._settings
            retry = settings.retry_min + (settings.retry_max - settings.retry_min) * number / _RETRIES
            piece = known[1][number] = encoding.encode([Replayed("", opened(topics, retry), id_)])
        return piece

    def ended(self, beginning: Beginning, step: Ready, suffix: Suffix) -> bytes:
        """`gateway.ended` for each channel that is over, where its client doesn't know.

        That is a new client, one that may have missed it in a gap, and one whose stream would end without it.
        """
        topics = beginning.topics
        parts: list[Ready | Prepared] = [*beginning.before, step]
        if not beginning.is_new and not all(topic.over for topic in topics) and not any(each.gaps for each in parts):
            return b""
        told = frozenset().union(*[each.ends for each in parts])
        id_ = self._listening.id_of(topics, suffix)
        return beginning.encoding.encode(
            [
                Replayed(topic.name, ended(topic.name), id_)
                for topic in topics
                if topic.over and topic.name not in told
            ]
        )

    def sweep(self) -> None:
        """Forget; to be called every second or so."""
        self._remembered.clear()


def _ready(replay: Replay, encoding: Encoding) -> Ready:
    replayed = list(replay)
    piece = encoding.encode(replayed) if replayed else b""
    return Ready(piece, len(replayed), tuple(gap_reasons(replayed)), channels_over(replayed))
