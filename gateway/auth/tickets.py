"""Tickets: each opens one stream, once, for clients that can't send headers.

A ticket stands in a URL, and URLs are logged. So it counts once. An EventSource, though, repeats its URL whenever it
reconnects. What tells it from whoever has read the URL is the proof that ends the ids of its events
(`gateway.memory.place`): it sends the last one back.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from itertools import chain
from typing import Any, NamedTuple

from gateway.auth.channels import Channels
from gateway.auth.errors import CannotTell, Unauthorized
from gateway.auth.grant import Grant
from gateway.memory.place import PROOF_LENGTH, parse_place
from gateway.metrics import Metrics
from gateway.ports import StoreFailed, TicketStore
from gateway.settings import Settings

_NOTICE = 1.0
"""Seconds until every worker knows of a revocation: until then a token without a date still makes tickets."""
_HALF_PAIRS = "surrogatepass"
"""The subject of a JWT may be half of a surrogate pair, which is no UTF-8."""
_LENGTH = 32
_BYTES = _LENGTH * 3 // 4
_PROOF_BYTES = PROOF_LENGTH * 3 // 4
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class TooLarge(Exception):
    """A ticket would take too much of Redis' memory."""


class Ticket(NamedTuple):
    """A new ticket.

    Attributes:
        text: what stands in the URL.
        expires_at: until when it can be used, in seconds since 1970.
    """

    text: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Opening:
    """What a ticket opens.

    Attributes:
        grant: whose it is, and until when; it always ends.
        channels: of the stream.
        patterns: likewise.
        proof: what the ids of the stream end with.
        name: of the ticket in the store.
        content: what is kept once it is used; empty if it has been.
    """

    grant: Grant
    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    proof: str
    name: str
    content: bytes


class Tickets:
    """Makes tickets, and says what they open.

    Args:
        settings: `ticket_stream_age` and `ticket_bytes`.
        store: where they are kept.
        metrics: where they are counted.
        is_revoked: whether a grant of a subject, given at some time, doesn't count any more.
        now: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        store: TicketStore,
        metrics: Metrics,
        is_revoked: Callable[[str | None, float | None], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stream_age = settings.ticket_stream_age
        self._most_bytes = settings.ticket_bytes
        self._store = store
        self._metrics = metrics
        self._is_revoked = is_revoked
        self._now = now

    async def make(self, grant: Grant, channels: Sequence[str], patterns: Sequence[str], seconds: float) -> Ticket:
        """A ticket for a stream of these, all of which the grant allows; to be used within so many seconds.

        Raises:
            TooLarge: the names of all channels are longer than the setting `ticket_bytes`.
            StoreFailed: it can't be kept.
        """
        if sum(len(name.encode()) for name in chain(channels, patterns)) > self._most_bytes:
            raise TooLarge
        now = self._now()
        until = now + self._stream_age
        if grant.expires_at is not None:
            until = min(until, grant.expires_at)
            seconds = min(seconds, grant.expires_at - now)
        text = secrets.token_urlsafe(_BYTES)
        issued_at = grant.issued_at
        if issued_at is None:
            issued_at = await self._store.time()
            issued_at -= _NOTICE if grant.asked_at is None else max(self._now() - grant.asked_at, 0.0)
        presence = [name for name in channels if grant.presence.has(name)]
        record = _Record(grant.sub, issued_at, until, channels, patterns, presence)
        await self._store.keep(_name(text), record.stored(), seconds)
        self._metrics.tickets += 1
        return Ticket(text, now + seconds)

    async def open(
        self, text: str, channels: tuple[str, ...], patterns: tuple[str, ...], last_event_id: str | None
    ) -> Opening:
        """What a ticket opens. It isn't used yet.

        Args:
            text: the ticket.
            channels: what the stream is to have of the ticket's; if there are no patterns either, everything.
            patterns: likewise.
            last_event_id: what the client has come back with.

        Raises:
            Unauthorized: nothing.
            CannotTell: that can't be said just now.
        """
        try:
            return await self._open(text, channels, patterns, last_event_id)
        except Unauthorized:
            self._metrics.unauthorized["bad_ticket"] += 1
            raise

    async def use(self, opening: Opening) -> None:
        """The stream begins: nobody else can open one with its ticket.

        Raises:
            Unauthorized: somebody else has, meanwhile.
            CannotTell: that can't be said just now.
        """
        if not opening.content:
            return
        seconds = (opening.grant.expires_at or 0.0) - self._now()
        try:
            is_first = await self._store.use(opening.name, opening.content, seconds)
        except StoreFailed as error:
            raise CannotTell(str(error)) from None
        if not is_first:
            self._metrics.unauthorized["bad_ticket"] += 1
            raise Unauthorized("The ticket has been used.")

    async def _open(
        self, text: str, channels: tuple[str, ...], patterns: tuple[str, ...], last_event_id: str | None
    ) -> Opening:
        if len(text) != _LENGTH or not _ALPHABET.issuperset(text):
            raise Unauthorized("That is no ticket of this gateway.")  # nobody is asked for it
        name = _name(text)
        try:
            kept, used = await self._store.find(name)
        except StoreFailed as error:
            raise CannotTell(str(error)) from None
        record = _Record.parse(kept if used is None else used)
        if record is None:
            raise Unauthorized("There is no such ticket: it has expired, or there never was one.")
        if used is None:
            proof = secrets.token_urlsafe(_PROOF_BYTES)
            content = record._replace(proof=_digest(proof)).stored()
        else:
            proof, content = _proof_in(last_event_id), b""
            if not compare_digest(record.proof, _digest(proof)):
                raise Unauthorized("The ticket has been used.")
        if record.expires_at <= self._now():
            raise Unauthorized("What the ticket was made with has expired.")
        if self._is_revoked(record.sub, record.issued_at):
            raise Unauthorized("The ticket has been revoked.")
        for name_, asked, named in (("channel", channels, record.channels), ("pattern", patterns, record.patterns)):
            for each in asked:
                if each not in named:
                    raise Unauthorized(f"The ticket is not for {name_} {each!r}.")
        if not channels and not patterns:
            channels, patterns = tuple(record.channels), tuple(record.patterns)
        return Opening(record.grant, channels, patterns, proof, name, content)


class _Record(NamedTuple):
    """What is kept of a ticket, or of the stream that was opened with it; the latter has a digest of its proof."""

    sub: str | None
    issued_at: float | None
    expires_at: float
    channels: Sequence[str]
    patterns: Sequence[str]
    presence: Sequence[str]
    proof: str = ""

    @classmethod
    def parse(cls, content: bytes | None) -> "_Record | None":
        """What was stored, perhaps by a worker of a later version; None: nothing, or what no gateway stores."""
        try:
            fields = json.loads((content or b"").decode(errors=_HALF_PAIRS))
            record = cls(**{name: fields[name] for name in cls._fields if name in fields})
        except (ValueError, TypeError):
            return None
        return record if _is_whole(record) else None

    def stored(self) -> bytes:
        return json.dumps(self._asdict(), ensure_ascii=False).encode(errors=_HALF_PAIRS)

    @property
    def grant(self) -> Grant:
        return Grant(
            self.sub,
            Channels.exactly(self.channels),
            presence=Channels.exactly(self.presence),
            expires_at=self.expires_at,
            issued_at=self.issued_at,
        )


def _is_whole(record: Any) -> bool:
    """Whether everything in a record is of its type."""
    return (
        isinstance(record.sub, str | None)
        and isinstance(record.issued_at, int | float | None)
        and isinstance(record.expires_at, int | float)
        and all(map(_are_names, (record.channels, record.patterns, record.presence)))
        and isinstance(record.proof, str)
        and record.proof.isascii()
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _proof_in(last_event_id: str | None) -> str:
    place = parse_place(last_event_id)[1] if last_event_id else None
    return place.proof if place is not None else ""


def _name(ticket: str) -> str:
    return sha256(ticket.encode()).hexdigest()


def _digest(proof: str) -> str:
    return sha256(proof.encode()).hexdigest()
