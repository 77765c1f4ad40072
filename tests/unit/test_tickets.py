"""What a ticket opens, and when it opens nothing."""

import json
import re
from typing import Any

import pytest

from gateway.auth.channels import Channels
from gateway.auth.errors import CannotTell, Unauthorized
from gateway.auth.grant import Grant
from gateway.auth.tickets import Opening, Tickets
from gateway.memory.place import NOWHERE, Suffix
from gateway.metrics import Metrics
from gateway.ports import StoredTicket, StoreFailed
from gateway.settings import Settings

pytestmark = pytest.mark.anyio

ALICE = Grant("alice", Channels(["*"]), Channels(["*"]), Channels(["room.*"]), True, 1000.0, 10.0)


class Desk:
    """Where tickets are made and shown, at a time that stands still.

    Attributes:
        kept: what the store has, and until when.
        broken: the store fails.
    """

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.kept: dict[str, tuple[bytes, float]] = {}
        self.broken = False
        self.revoked: set[tuple[str | None, float | None]] = set()
        self.metrics = Metrics()
        self.tickets = Tickets(
            Settings(**settings), self, self.metrics, lambda *grant: grant in self.revoked, lambda: self.now
        )

    # As a store; its clock is not the worker's.

    async def time(self) -> float:
        self._check()
        return self.now + 5000

    async def keep(self, name: str, content: bytes, seconds: float) -> None:
        self._check()
        self.kept[name] = content, self.now + seconds

    async def find(self, name: str) -> StoredTicket:
        self._check()
        return StoredTicket(self._get(name), self._get(f"{name} used"))

    async def use(self, name: str, content: bytes, seconds: float) -> bool:
        self._check()
        if self._get(f"{name} used") is not None:
            return False
        self.kept[f"{name} used"] = content, self.now + seconds
        return True

    def _check(self) -> None:
        if self.broken:
            raise StoreFailed("it is away")

    def _get(self, name: str) -> bytes | None:
        content, until = self.kept.get(name, (None, 0.0))
        return content if self.now < until else None

    # For the tests.

    async def make(
        self, grant: Grant = ALICE, channels: tuple[str, ...] = ("news",), patterns: tuple[str, ...] = ()
    ) -> str:
        return (await self.tickets.make(grant, channels, patterns, 60)).text

    async def open(
        self, ticket: str, *channels: str, patterns: tuple[str, ...] = (), last_event_id: str | None = None
    ) -> Opening:
        return await self.tickets.open(ticket, channels, patterns, last_event_id)

    async def refuse(self, ticket: str, *channels: str, **asked: Any) -> str:
        counted = self.metrics.unauthorized["bad_ticket"]
        with pytest.raises(Unauthorized) as refusal:
            await self.open(ticket, *channels, **asked)
        assert self.metrics.unauthorized["bad_ticket"] == counted + 1
        return str(refusal.value)


async def test_a_ticket_opens_what_it_was_made_for() -> None:
    desk = Desk()
    ticket = await desk.make(channels=("news", "room.1"), patterns=("a*",))
    assert re.fullmatch(r"[\w-]{32}", ticket)
    assert desk.metrics.tickets == 1
    opening = await desk.open(ticket)
    assert (opening.channels, opening.patterns) == (("news", "room.1"), ("a*",))
    grant = opening.grant
    assert (grant.sub, grant.expires_at, grant.issued_at, grant.admin) == ("alice", 1000.0, 10.0, False)
    assert (grant.subscribe.globs, grant.publish.globs, grant.presence.globs) == (("news", "room.1"), (), ("room.1",))
    assert not any(ticket in name or ticket in content.decode() for name, (content, _) in desk.kept.items())


async def test_a_stream_may_have_a_part_of_it() -> None:
    desk = Desk()
    ticket = await desk.make(channels=("a", "b"), patterns=("c*", "d*"))
    part = await desk.open(ticket, "b", patterns=("d*",))
    assert (part.channels, part.patterns) == (("b",), ("d*",))
    assert "channel 'c1'" in await desk.refuse(ticket, "a", "c1")
    assert "pattern 'c'" in await desk.refuse(ticket, "a", patterns=("c",))
    assert (await desk.open(ticket)).channels == ("a", "b"), "asking for something else doesn't use it"


async def test_it_is_used_once() -> None:
    desk = Desk()
    ticket = await desk.make()
    one, other = await desk.open(ticket), await desk.open(ticket)
    assert one.proof != other.proof
    await desk.tickets.use(one)
    with pytest.raises(Unauthorized, match="has been used"):
        await desk.tickets.use(other)
    assert desk.metrics.unauthorized["bad_ticket"] == 1
    for id_ in (None, "", "17", NOWHERE, "2.1.2", Suffix(proof=other.proof).on("2.1.2"), f"17.s{one.proof}"):
        assert "has been used" in await desk.refuse(ticket, last_event_id=id_)


@pytest.mark.parametrize("place", ["2.1.2", NOWHERE, "17~2.1.2.12345678:1"])
async def test_its_own_stream_comes_back(place: str) -> None:
    desk = Desk()
    ticket = await desk.make()
    opening = await desk.open(ticket)
    await desk.tickets.use(opening)
    id_ = Suffix("abcdef", opening.proof).on(place)
    desk.now = 999.0
    for _ in range(2):
        again = await desk.open(ticket, last_event_id=id_)
        assert (again.proof, again.channels) == (opening.proof, opening.channels)
        await desk.tickets.use(again)  # asks nobody
    assert "'other'" in await desk.refuse(ticket, "other", last_event_id=id_)
    desk.now = 1000.0
    await desk.refuse(ticket, last_event_id=id_)


async def test_a_proof_is_nothing_without_its_ticket() -> None:
    desk = Desk()
    ticket, other = await desk.make(), await desk.make()
    opening = await desk.open(ticket)
    await desk.tickets.use(opening)
    await desk.tickets.use(await desk.open(other))
    assert "has been used" in await desk.refuse(other, last_event_id=Suffix(proof=opening.proof).on("2.1.2"))


async def test_a_new_ticket_takes_any_id() -> None:
    """A page goes on with a new ticket where its last stream has ended."""
    desk = Desk()
    first, second = await desk.make(), await desk.make()
    opening = await desk.open(first)
    await desk.tickets.use(opening)
    following = await desk.open(second, last_event_id=Suffix(proof=opening.proof).on("2.1.2"))
    assert following.proof != opening.proof


async def test_it_expires() -> None:
    desk = Desk()
    ticket = await desk.make()
    desk.now += 59.9
    await desk.open(ticket)
    desk.now += 0.1
    assert "expired" in await desk.refuse(ticket)


async def test_it_ends_with_what_it_was_made_with() -> None:
    desk = Desk(ticket_stream_age=500)
    made = await desk.tickets.make(ALICE, ["news"], [], 60)
    assert made.expires_at == 160
    soon = await desk.tickets.make(Grant("alice", expires_at=120.0), ["news"], [], 60)
    assert soon.expires_at == 120
    assert (await desk.open(made.text)).grant.expires_at == 600, "the setting comes before the grant's end"
    assert (await desk.open(soon.text)).grant.expires_at == 120
    forever = await desk.tickets.make(Grant("alice"), ["news"], [], 60)
    assert (await desk.open(forever.text)).grant.expires_at == 600
    desk.kept = {name: (content, 1e9) for name, (content, _) in desk.kept.items()}
    desk.now = 120
    assert "has expired" in await desk.refuse(soon.text), "even if the store's clock is late"


async def test_a_grant_revoked_after_it_was_made_or_used() -> None:
    desk = Desk()
    ticket, used = await desk.make(), await desk.make()
    opening = await desk.open(used)
    await desk.tickets.use(opening)
    desk.revoked.add(("alice", 10.0))
    assert "revoked" in await desk.refuse(ticket)
    assert "revoked" in await desk.refuse(used, last_event_id=Suffix(proof=opening.proof).on("2.1.2"))


@pytest.mark.parametrize(
    ("asked_at", "issued_at"), [(None, 5099.0), (100.0, 5100.0), (93.0, 5093.0), (101.0, 5100.0)]
)
async def test_a_grant_without_a_date(asked_at: float | None, issued_at: float) -> None:
    """A ticket has one, so that a revocation doesn't count for tickets that are made later."""
    desk = Desk()
    ticket = await desk.make(Grant("alice", asked_at=asked_at))
    assert (await desk.open(ticket)).grant.issued_at == issued_at


@pytest.mark.parametrize("text", ["", "x", "x" * 31, "x" * 33, "x" * 31 + "!", "ä" * 32, "x" * 100_000, "\0" * 32])
async def test_what_is_no_ticket_is_not_looked_up(text: str) -> None:
    desk = Desk()
    desk.broken = True
    assert "no ticket" in await desk.refuse(text)


async def test_one_that_nobody_made() -> None:
    desk = Desk()
    assert "no such ticket" in await desk.refuse("x" * 32)


async def test_a_store_that_is_away_refuses_nobody() -> None:
    desk = Desk()
    ticket = await desk.make()
    opening = await desk.open(ticket)
    desk.broken = True
    with pytest.raises(CannotTell, match="it is away"):
        await desk.open(ticket)
    with pytest.raises(CannotTell, match="it is away"):
        await desk.tickets.use(opening)
    with pytest.raises(StoreFailed):
        await desk.make()
    assert (desk.metrics.tickets, desk.metrics.unauthorized.total()) == (1, 0)


async def test_what_a_later_version_adds_is_ignored() -> None:
    desk = Desk()
    ticket = await desk.make()
    (name,) = desk.kept
    desk.kept[name] = json.dumps({**_GOOD, "more": 1}).encode(), 1e9
    assert (await desk.open(ticket)).channels == ("a",)


async def test_odd_subjects() -> None:
    desk = Desk()
    for sub in (None, "", "ä", "\ud800", "a\nb"):
        ticket = await desk.make(Grant(sub))
        opening = await desk.open(ticket)
        await desk.tickets.use(opening)
        again = await desk.open(ticket, last_event_id=Suffix(proof=opening.proof).on("2.1.2"))
        assert (opening.grant.sub, again.grant.sub) == (sub, sub)


_GOOD: dict[str, Any] = {
    "sub": "alice", "issued_at": 1, "expires_at": 1e9, "channels": ["a"], "patterns": [], "presence": [], "proof": "",
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"7", b"\xff", b'{"proof": ""}',
        *(json.dumps({**_GOOD, name: value}).encode() for name, value in [
            ("sub", 7), ("issued_at", "x"), ("expires_at", None), ("channels", "a"), ("channels", [1]),
            ("patterns", None), ("presence", {}), ("proof", 5), ("proof", "\xe4"),
        ]),
    ],
)  # fmt: skip
async def test_what_is_broken_in_the_store_opens_nothing(content: bytes) -> None:
    desk = Desk()
    ticket = await desk.make()
    (name,) = desk.kept
    desk.kept[name] = content, 1e9
    assert "no such ticket" in await desk.refuse(ticket)
    desk.kept[f"{name} used"] = content, 1e9
    assert "no such ticket" in await desk.refuse(ticket)
