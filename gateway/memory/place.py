"""The id of an event: where a stream stands on all of its topics.

    2.<generation>.<tick>[.<key>[<offset>]:<count>]…[.n<new>][.s<proof>]

Numbers are in hexadecimal. A topic that isn't named is at the tick. `offset` is the number of the topic's newest
durable message, counted from the tick; it is missing where there was none since the tick. `new` stands for the topics
that were declared as new when the stream was opened: from here on they are no longer new, even though an EventSource
repeats its URL. `proof` shows whose stream it was, where its URL can be used only once.

The counting fields are frozen: workers of different versions serve the same clients during an update, and a version
that needs other fields begins its ids with another number.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple, Protocol

from gateway.memory.position import Position

VERSION = "2"
KEY_LENGTH = 8
PROOF_LENGTH = 22
"""Characters of a proof, six bits each: nobody guesses it."""
MAX_PLACE_BYTES = 2048
"""An id for 100 channels and 10 patterns is shorter; see `LONG_ID` in fanout/delivery.py."""
FIRST_GENERATION = 10**13
"""Generations are numbered from here (broker/library.lua); the previous version counted milliseconds since 1970."""
_LONG_KEY_LENGTH = 22
_NEW_KEY = 6
_NEW_KEY_END = KEY_LENGTH + _NEW_KEY
_PART = re.compile(r"([\w-]{22}|[\w-]{8})([0-9a-f]{0,13}):([0-9a-f]{1,13})", re.ASCII)
_PLACE = re.compile(
    rf"{VERSION}\.([0-9a-f]{{1,15}})\.([0-9a-f]{{1,13}})((?:\.[\w-]{{8,35}}:[0-9a-f]{{1,13}})*)"
    rf"(?:\.n((?:[\w-]{{{_NEW_KEY}}})+))?(?:\.s([\w-]{{{PROOF_LENGTH}}}))?",
    re.ASCII,
)
# Of the version before this one: a worker's id for a plain message, and Redis' for a durable one.
_PREVIOUS = re.compile(r"([0-9]{10,16})-(?:([0-9a-f]{8})|([0-9]{1,10}))")


class Named(Protocol):
    """A topic, as far as ids are concerned."""

    @property
    def key(self) -> str:
        """What stands for the topic in ids."""

    @property
    def long_key(self) -> str:
        """The same, where two topics of one stream have the same `key`."""


class Place(NamedTuple):
    """An id, taken apart.

    Attributes:
        generation: 0 if the stream had no position, because Redis refused to count.
        tick: the newest tick.
        since: by a topic's key, the number of its newest durable message since the tick (or 0), and the count.
        included: stands for the topics that were new when the stream was opened; empty if none were.
        proof: of whose stream it was; empty if its URL can be used more than once.
    """

    generation: int
    tick: int
    since: Mapping[str, tuple[int, int]]
    included: str = ""
    proof: str = ""

    def includes(self, topic: Named) -> bool:
        """Whether it says where the topic is, or that it isn't new any more."""
        new = self.included
        return (
            topic.key in self.since
            or topic.long_key in self.since
            or _new_key(topic) in [new[at : at + _NEW_KEY] for at in range(0, len(new), _NEW_KEY)]
        )

    def at(self, topic: Named) -> Position:
        """The position on a topic."""
        part = self.since.get(topic.key)
        if part is None and self.since:
            part = self.since.get(topic.long_key)
        return Position(self.generation, self.tick, *(part or (0, 0)))


NOWHERE = f"{VERSION}.0.0"
"""The id of a stream without a position; who resumes with it gets a gap."""
_NOT_BEGUN = f"{VERSION}.0.1"
"""The id of a stream that has not begun: all it says is the proof."""


class Suffix(NamedTuple):
    """What the ids of one stream say besides where it stands.

    Attributes:
        new: stands for the topics that were declared as new.
        proof: of whose stream it is.
    """

    new: str = ""
    proof: str = ""

    def on(self, place: str) -> str:
        """An id with it."""
        if self.new and place != NOWHERE:
            place = f"{place}.n{self.new}"
        return f"{place}.s{self.proof}" if self.proof else place

    def on_all(self, ids: Iterable[str | None]) -> list[str | None]:
        """Ids with it; None stays None."""
        return [id_ if id_ is None else self.on(id_) for id_ in ids]


NO_SUFFIX = Suffix()


def with_proof(text: str | None, proof: str) -> str:
    """What a client with that id is told instead, so that it can come back with the proof; None: it has no id.

    `without_proof` gives the former id.
    """
    own, place = parse_place(text) if text is not None else (None, None)
    if place is None:
        return Suffix(proof=proof).on(_NOT_BEGUN if own is None else f"{own}~{_NOT_BEGUN}")
    assert text is not None
    return Suffix(proof=proof).on(text.removesuffix(f".s{place.proof}") if place.proof else text)


def without_proof(text: str) -> str | None:
    """The id that a client had before it was told one by `with_proof`; None: it had none."""
    own, place = parse_place(text)
    is_begun = place is None or (place.generation, place.tick) != (0, 1)
    return text if is_begun else own


def topic_keys(name: str, is_pattern: bool) -> tuple[str, str]:
    """What stands for a topic in ids: short, and long for streams in which two short ones are the same."""
    digest = blake2b(name.encode(), digest_size=16, person=b"pattern" if is_pattern else b"channel").digest()
    long = urlsafe_b64encode(digest).decode()[:_LONG_KEY_LENGTH]
    return long[:KEY_LENGTH], long


def new_topics(topics: Iterable[Named]) -> str:
    """What stands in an id for the topics that were declared as new; empty for none."""
    return "".join(sorted(_new_key(topic) for topic in topics))


def _new_key(topic: Named) -> str:
    return topic.long_key[KEY_LENGTH:_NEW_KEY_END]


def ambiguous_keys(topics: Iterable[Named]) -> frozenset[str]:
    """The short keys that more than one of the topics has; those topics are named by their long ones."""
    seen: set[str] = set()
    return frozenset(topic.key for topic in topics if topic.key in seen or seen.add(topic.key))  # type: ignore[func-returns-value]


def format_era(era: tuple[int, int]) -> str:
    """What an id begins with."""
    return f"{VERSION}.%x.%x" % era


def format_part(key: str, position: Position) -> str:
    """What an id says of a topic that had messages since the tick."""
    _, tick, durable, count = position
    return f".{key}{durable - tick:x}:{count:x}" if durable else f".{key}:{count:x}"


def format_place(era: tuple[int, int], positions: Iterable[tuple[str, Position]]) -> str:
    """The id of a stream at these positions; those that are not after the tick of `era` are left out."""
    parts = [format_part(key, at) for key, at in positions if at[:2] == era and at[2:] != (0, 0)]
    return format_era(era) + "".join(parts)


def parse_place(text: str) -> tuple[str | None, Place | None]:
    """The publisher's own id in an id, and the place in it.

    On a stream of one channel a publisher's own id is the whole id; on others the place follows it: `17~2.…`. An id
    that holds no place is (itself, None).
    """
    own, tilde, rest = text.rpartition("~")
    match = _PLACE.fullmatch(rest)
    if match is None:
        return text, None
    generation, tick = int(match[1], 16), int(match[2], 16)
    since = {}
    for part in match[3].split(".")[1:]:
        if (named := _PART.fullmatch(part)) is None:
            return text, None
        offset = int(named[2], 16) if named[2] else 0
        since[named[1]] = (tick + offset if offset else 0, int(named[3], 16))
    return (own if tilde else None), Place(generation, tick, since, match[4] or "", match[5] or "")


def parse_previous(text: str) -> tuple[int, int] | None:
    """Milliseconds and number of an id that the previous version of the gateway gave; None if it is none.

    Such ids say when, but not where: what is kept after them is sent again, behind a gap.
    """
    match = _PREVIOUS.fullmatch(text)
    return (int(match[1]), int(match[3] or 0)) if match else None
