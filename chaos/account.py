"""What was published against what each client received."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chaos.diary import GAP


@dataclass(frozen=True, slots=True)
class Published:
    """A message that Redis took.

    Attributes:
        number: counts the messages of its channel.
        unheard: it was published while workers could not hear Redis, by the clock of the harness.
        at: when it was published, in seconds since the stage was built.
        durable: it was published to be kept.
        kept: Redis has kept it, so that nothing excuses its loss.
        astray: it was published within a second of a failover that closed no connection: if it is not durable, it may
            come twice or out of order.
    """

    number: int
    unheard: bool = False
    at: float = 0.0
    durable: bool = False
    kept: bool = False
    astray: bool = False


@dataclass
class Account:
    """One column of one row, summed over its clients.

    Attributes:
        clients: how many there were.
        published: messages that Redis took.
        due: deliveries of them that clients were to get.
        unheard: of the messages, published while workers could not hear Redis.
        lost: messages that a client should have had and never got.
        unexplained: of these, plain ones lost although workers could hear them.
        forgotten: of these, durable ones lost although Redis kept them.
        unannounced: lost without a gap event in the place where they are missing.
        duplicated: deliveries beyond the first.
        disordered: deliveries after a later message of the same channel.
        astray: deliveries that were twice or out of order where that is allowed.
        phantom: deliveries of what was never published.
        told: clients that had a gap event.
        needless: gap events in a place where nothing is missing.
        uncalled: gap events on channels on which nothing broke.
        closed: clients that gave up for ever.
        unexpected: clients that got what no client should.
        silence: the longest time a client heard nothing, in seconds.
        reasons: of the gap events.
        examples: the first few faults, in words.
    """

    clients: int = 0
    published: int = 0
    due: int = 0
    unheard: int = 0
    lost: int = 0
    unexplained: int = 0
    forgotten: int = 0
    unannounced: int = 0
    duplicated: int = 0
    disordered: int = 0
    astray: int = 0
    phantom: int = 0
    told: int = 0
    needless: int = 0
    uncalled: int = 0
    closed: int = 0
    unexpected: int = 0
    silence: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def example(self, text: str) -> None:
        if len(self.examples) < 8:
            self.examples.append(text)


@dataclass
class Channel:
    """What was published on one channel.

    Attributes:
        sure: messages that Redis acknowledged, in order. A client must have them.
        unsure: numbers Redis never answered for. A client may have them.
        unsure_durable: of these, those that Redis keeps if it took them.
        first: numbers before it are not counted: not all clients were there yet.
        calm: nothing broke that could excuse a gap event: `always`, or `unmoved`, for clients that kept their stream.
    """

    sure: list[Published]
    unsure: frozenset[int] = frozenset()
    unsure_durable: frozenset[int] = frozenset()
    first: int = 0
    calm: Literal["", "unmoved", "always"] = ""

    def __post_init__(self) -> None:
        self.sure = [message for message in self.sure if message.number >= self.first]
        self._numbers = [message.number for message in self.sure]
        self._known = frozenset(self._numbers)
        # Redis may have kept a message and died before it told anybody: no worker has heard it then.
        self._unheard = self.unsure_durable.union(one.number for one in self.sure if one.unheard and one.durable)
        self._astray = frozenset(one.number for one in self.sure if one.astray and not one.durable)

    def between(self, first: int, last: int) -> list[Published]:
        """The sure ones from `first` to `last`, both included."""
        return self.sure[bisect_left(self._numbers, first) : bisect_left(self._numbers, last + 1)]

    def may_lack(self, first: int, last: int) -> bool:
        """Whether a message between them was perhaps published, and perhaps not."""
        return any(first <= number <= last for number in self.unsure)

    def astray(self, number: int) -> bool:
        return number in self._astray

    def in_a_hole(self, number: int) -> bool:
        """Whether it may have come out of Redis, with plain messages missing after it as well as before it.

        One gap event, at the beginning, announces all of that.
        """
        return number in self._unheard

    def knows(self, number: int) -> bool:
        return number in self._known or number in self.unsure


def reconcile(channels: Mapping[str, Channel], clients: Iterable[Mapping[str, Any]]) -> Account:
    """Compare each client's diaries with what was published on its channels.

    Args:
        channels: by name, those of one column.
        clients: their reports; each is due what was published on the channels it has a diary of.
    """
    account = Account(
        published=sum(len(channel.sure) for channel in channels.values()),
        unheard=sum(message.unheard for channel in channels.values() for message in channel.sure),
    )
    for index, client in enumerate(clients):
        account.clients += 1
        for name, entries in client["diaries"].items():
            account.due += len(channels[name].sure)
            _count(account, f"client {index}, {name}", channels[name], entries)
            _gaps(account, f"client {index}, {name}", channels[name], entries, client)
        account.told += bool(client["gaps"])
        account.reasons.update(client["gaps"])
        account.silence = max(account.silence, client["silence"])
        if client["refusal"]:
            account.closed += 1
            account.example(f"client {index} gave up at {client['refusal']}")
        if client["unexpected"]:
            account.unexpected += 1
            account.example(f"client {index} got {client['unexpected'][0]}")
    return account


def _gaps(
    account: Account, who: str, channel: Channel, entries: Sequence[Sequence[int]], client: Mapping[str, Any]
) -> None:
    if channel.calm == "always" or (channel.calm == "unmoved" and client["opened"] == 1):
        count = sum(first == GAP for first, _ in entries)
        account.uncalled += count
        if count:
            account.example(f"{who}: {count} gap events where nothing broke ({', '.join(client['gaps'])})")


def _count(account: Account, who: str, channel: Channel, entries: Sequence[Sequence[int]]) -> None:
    highest = channel.first - 1
    missing: dict[int, tuple[Published, bool]] = {}
    # Gap events that have announced nothing yet, and whether one before them still announces what is missing.
    gaps = 0
    within = False
    # Missing before an event that came astray, which is too early: their gap event may follow it.
    early: list[int] = []

    def skipped(last: int) -> None:
        """Up to `last` nothing has come; a gap event has announced it, or not."""
        nonlocal gaps, within
        skipped_here = channel.between(highest + 1, last)
        within = within or gaps > 0
        missing.update({message.number: (message, within) for message in skipped_here})
        if skipped_here or channel.may_lack(highest + 1, last):
            gaps = 0

    def heard_again() -> None:
        """What is missing from here on must be announced again."""
        nonlocal gaps, within
        account.needless += gaps
        gaps, within = 0, False

    def again(number: int) -> None:
        """A number not above the highest so far."""
        was_missing = missing.pop(number, None) is not None
        if channel.astray(number) or (was_missing and channel.astray(highest)):
            account.astray += 1
        elif was_missing:
            account.disordered += 1
            account.example(f"{who}: {number} came after {highest}")
        else:
            account.duplicated += 1
            account.example(f"{who}: {number} came twice")

    for first, last in entries:
        if first == GAP:
            gaps += 1
            missing.update({number: (missing[number][0], True) for number in early if number in missing})
            early.clear()
            continue
        if last < channel.first:
            gaps, within = 0, False
            continue
        for number in range(max(first, channel.first), min(last, highest) + 1):
            again(number)
        first = max(first, highest + 1)
        if first > last:
            continue
        skipped(first - 1)
        if all(channel.astray(number) for number in range(first, last + 1)):
            early += [message.number for message in channel.between(highest + 1, first - 1)]
        else:
            early.clear()
        for number in range(first, last + 1):
            if not channel.knows(number):
                account.phantom += 1
                account.example(f"{who}: {number} was never published")
        if not all(channel.in_a_hole(number) for number in range(first, last + 1)):
            heard_again()
        highest = last
    if channel.sure:
        skipped(channel.sure[-1].number)
    heard_again()
    _lost(account, who, missing, entries)


def _lost(
    account: Account, who: str, missing: Mapping[int, tuple[Published, bool]], entries: Sequence[Sequence[int]]
) -> None:
    account.lost += len(missing)
    for message, announced in missing.values():
        if message.durable and message.kept:
            account.forgotten += 1
            account.example(f"{who}: lost {message.number} of {message.at:.1f} s, which Redis kept")
        elif not message.durable and not message.unheard:
            account.unexplained += 1
            account.example(f"{who}: lost {message.number} of {message.at:.1f} s, which workers could hear")
        if not announced:
            account.unannounced += 1
            account.example(
                f"{who}: lost {message.number}, and no gap event said so: {_around(entries, message.number)}"
            )


def _around(entries: Sequence[Sequence[int]], number: int) -> str:
    """What came before and after the place where a message is missing."""
    after = next((place for place, (first, _) in enumerate(entries) if first > number), len(entries))
    came = ["gap" if first == GAP else f"{first}-{last}" for first, last in entries[max(0, after - 4) : after + 2]]
    return f"it got {', '.join(came)}"
