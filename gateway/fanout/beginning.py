"""How streams begin."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import orjson

from gateway.fanout.encodings import Encoding
from gateway.fanout.prepared import Prepared
from gateway.fanout.unsent import Piece
from gateway.memory.catch_up import CatchUp, Wish
from gateway.memory.replay import Replayed
from gateway.memory.topic import Topic


class Ready(NamedTuple):
    """What a stream is sent first, encoded.

    Attributes:
        piece: the bytes.
        events: how many, gaps included.
        gaps: the reasons of those that are gaps.
        ends: the channels of which it says that they are over.
    """

    piece: bytes
    events: int
    gaps: tuple[str, ...] = ()
    ends: frozenset[str] = frozenset()


NOTHING = Ready(b"", 0)


class Beginning:
    """What is known so far of how a stream begins, or several that go on alike.

    Args:
        topics: of the stream.
        encoding: likewise.
        wish: what its client wants from before now.

    Attributes:
        topics: as given.
        encoding: as given.
        state: what has been found out.
        before: the long replays that it begins with.
        is_new: its client comes for the first time, and so was never told that a channel is over.
    """

    def __init__(self, topics: tuple[Topic, ...], encoding: Encoding, wish: Wish) -> None:
        self.topics = topics
        self.encoding = encoding
        self._wish = wish
        self.is_new = wish.last_event_id is None
        self.state = CatchUp(topics, wish)
        self.before: list[Prepared] = []

    def follow(self, prepared: Prepared | None) -> None:
        """Go on behind a long replay, as if a client that has had it came back; None: there is none, begin again."""
        if prepared is not None:
            self.before.append(prepared)
            # The id says that what was new isn't any more.
            self._wish = Wish(prepared.left_at, proof=self._wish.proof)
        self.state = CatchUp(self.topics, self._wish)

    def pieces(self) -> Iterator[Piece]:
        """Those of the long replays."""
        return chain.from_iterable([each.pieces() for each in self.before])


def gap_reasons(replayed: Iterable[Replayed]) -> list[str]:
    """Of the gaps among these events."""
    return [orjson.loads(each.event.data)["reason"] for each in replayed if each.id is None]


def channels_over(replayed: Iterable[Replayed]) -> frozenset[str]:
    """Those whose end is among these events."""
    return frozenset(each.channel for each in replayed if each.event.is_end)
