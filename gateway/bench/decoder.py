"""From the bytes of an HTTP response to the numbers of the messages in it.

A broadcast server sends the same bytes to thousands of streams, so the same bytes are decoded thousands of
times. The decoder is therefore written as states that remember where each piece of bytes led: decoding a
piece in full (chunk framing, gzip, events cut anywhere, order) is paid for once, and every further stream pays for
one dictionary lookup. That is what lets every event of every stream be checked, instead of a sample.

A stream of several channels may get an `id:` line of its own, as a chunk in front of the bytes it shares with the
others. Such lines are taken out before the lookup.
"""

import re
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

from gateway.bench import payload
from gateway.bench.coding import BETWEEN_BLOCKS, GZIP, IDENTITY, Coding, coding_named
from gateway.bench.errors import ResponseError

_MEMO_ENTRIES = 512  # a fan-out has a few different pieces under way at a time; older ones never come back
_MEMO_DEPTH = 4  # pieces that end inside a chunk or an event and follow each other: longer chains are not kept
_HEAD_BYTES = 65_536

# A chunk that begins where a line begins and holds nothing but an `id:` line.
_OWN_ID = re.compile(rb"(?:\A|(?<=\n\r\n))([0-9a-fA-F]+)\r\n(id: [\x21-\x7e]*\n)\r\n")

_BEFORE_ID = b"\r\nid: "

# Names that begin with `gateway.` are the gateway's own: its events are no deliveries, whatever is in them.
_BLOCKS = re.compile(rb"^(?:event: ?gateway\.([a-z_]*)\r?\n|\r?\n)", re.MULTILINE)
_GAP = b"gap"


class State(Protocol):
    """What is known of a response after some of its bytes."""

    memo: dict[bytes, "Piece"]
    begun: bool
    ended: bool

    def step(self, data: bytes) -> "Piece":
        """What the next bytes of the response hold."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What some bytes held, and the state they lead to.

    Args:
        after: the state after these bytes.
        numbers: of the messages that became complete, in the order of their arrival.
        stamps: when each was published.
        run: whether each number is one more than the one before.
        gaps: how many `gateway.gap` began.
    """

    after: State
    numbers: tuple[int, ...] = ()
    stamps: tuple[int, ...] = ()
    run: bool = True
    gaps: int = 0


@dataclass(slots=True)
class Head:
    """Before the body: collects the status line and headers."""

    raw: bytes = b""
    memo: dict[bytes, Piece] = field(default_factory=dict)
    begun: bool = False
    ended: bool = False

    def step(self, data: bytes) -> Piece:
        raw = self.raw + data
        head, separator, rest = raw.partition(b"\r\n\r\n")
        if not separator:
            if len(raw) > _HEAD_BYTES:
                raise ResponseError("no end of the response's head")
            return Piece(Head(raw))
        lines = head.lower().split(b"\r\n")
        status = lines[0].split(b" ")[1:2]
        if status != [b"200"]:
            raise ResponseError(f"HTTP {b''.join(status).decode(errors='replace') or 'nonsense'}")
        headers = {name.strip(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        if not headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            raise ResponseError("the answer is no text/event-stream")
        if b"content-length" in headers:  # it has an end already: so a gateway turns clients away for now
            return Piece(Body(begun=True, ended=True))
        # Without chunks the body is one chunk that never ends.
        chunked = headers.get(b"transfer-encoding") == b"chunked"
        coding = coding_named(headers.get(b"content-encoding", b""))
        body: State = _FRESH[coding] if chunked else Body(coding=coding, left=sys.maxsize)
        return body.step(rest) if rest else Piece(body)


@dataclass(slots=True)
class Body:
    """In the body.

    Args:
        left: bytes of the present chunk still to come, its line end included.
        raw: the beginning of a chunk's size line.
        coding: the state of the content coding.
        partial: the beginning of a line that has no end yet.
        internal: whether the present event is one of the gateway's own.
        begun: whether any byte of an event has come.
        ended: whether the last chunk has come, or the coding's end.
        depth: how many pieces it is away from the state between two chunks.
    """

    left: int = 0
    raw: bytes = b""
    coding: Coding = IDENTITY
    partial: bytes = b""
    internal: bool = False
    begun: bool = False
    ended: bool = False
    depth: int = 0
    memo: dict[bytes, Piece] = field(default_factory=dict)

    def step(self, data: bytes) -> Piece:
        if self is _BETWEEN[IDENTITY]:
            shared = _without_own_ids(data)
            if len(shared) < len(data):
                # Remembering each stream's own bytes would push out what all of them share.
                return (self.memo.get(shared) or self.step(shared)) if shared else Piece(self)
        piece = self._decode(data)
        if self.depth >= _MEMO_DEPTH:
            return piece
        if len(self.memo) >= _MEMO_ENTRIES:
            self.memo.clear()
        self.memo[data] = piece
        return piece

    def _decode(self, data: bytes) -> Piece:
        after, encoded = self._unchunk(data)
        new, after.coding = self.coding.decode(encoded)
        body = self.partial + new
        numbers: list[int] = []
        stamps: list[int] = []
        end = gaps = 0
        internal: list[tuple[int, int]] = []
        if self.internal or b"gateway." in body:
            internal, after.internal, gaps = _internal_parts(body, self.internal)
        for number, stamp, place in payload.found(body):
            if any(start < place <= stop for start, stop in internal):
                continue
            numbers.append(number)
            stamps.append(stamp)
            end = place
        after.partial = body[max(end, body.rfind(b"\n", end) + 1) :]  # a payload has no line end in it
        after.ended = after.ended or after.coding.ended
        after.begun = self.begun or bool(new)
        after.depth = self.depth + 1
        run = all(second == first + 1 for first, second in pairwise(numbers))
        return Piece(_shared(after), tuple(numbers), tuple(stamps), run, gaps)

    def _unchunk(self, data: bytes) -> tuple["Body", bytes]:
        """Take the chunk framing off: the state of the framing afterwards, and the body's bytes."""
        data = self.raw + data
        left = self.left
        position = 0
        parts: list[bytes] = []
        while position < len(data):
            if left:
                portion = data[position : position + left]
                parts.append(portion[: max(0, left - 2)])
                position += len(portion)
                left -= len(portion)
                if not left and not b"\r\n".endswith(portion[-2:]):
                    raise ResponseError("a chunk is longer than it said")
                continue
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                break
            size = _chunk_size(data[position:line_end])
            if size == 0:
                return Body(ended=True), b"".join(parts)
            left = size + 2
            position = line_end + 2
        return Body(left=left, raw=data[position:]), b"".join(parts)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise ResponseError(f"{line[:20]!r} is no size of a chunk") from None


def _without_own_ids(data: bytes) -> bytes:
    """The bytes without the chunks that hold only an `id:` line."""
    first = _OWN_ID.match(data)
    if first and _is_whole(first):
        data = data[first.end() :]
    if _BEFORE_ID not in data:  # searching for the pattern takes ten times as long
        return data
    return _OWN_ID.sub(lambda match: b"" if _is_whole(match) else match[0], data)


def _is_whole(chunk: re.Match[bytes]) -> bool:
    """Whether the chunk is as long as it says; whatever else is wrong with it is found by decoding."""
    return int(chunk[1], 16) == len(chunk[2])


def _internal_parts(body: bytes, internal: bool) -> tuple[list[tuple[int, int]], bool, int]:
    """Where the gateway's own events are in bytes that begin with a line.

    Args:
        body: the bytes.
        internal: whether they begin within such an event.

    Returns:
        The parts, whether the last one has no end yet, and how many gaps are among them.
    """
    parts: list[tuple[int, int]] = []
    start, gaps = 0, 0
    for match in _BLOCKS.finditer(body):
        if match[1] is not None:
            gaps += match[1] == _GAP
            start = start if internal else match.end()
            internal = True
        elif internal:
            parts.append((start, match.start()))
            internal = False
    if internal:
        parts.append((start, len(body)))
    return parts, internal, gaps


def _shared(state: Body) -> Body:
    """Between two chunks all streams of one coding are in the same state, and share what it remembers."""
    if state.left or state.raw or state.partial or state.internal or state.ended or not state.begun:
        return state
    return _BETWEEN.get(state.coding, state)


_FRESH: Final = {coding: Body(coding=coding) for coding in (IDENTITY, GZIP)}
_BETWEEN: Final = {coding: Body(coding=coding, begun=True) for coding in (IDENTITY, BETWEEN_BLOCKS)}
