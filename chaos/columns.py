"""Who listens to what, and what is published there: the columns of the table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PLAIN, DURABLE, MIXED, QUIET, PATTERN = "plain", "durable", "mixed", "quiet", "pattern"
COLUMNS = (PLAIN, DURABLE, MIXED, QUIET, PATTERN)
SAME_MOVING, SAME_STILL = "same, moving", "same, still"
"""Identical payloads: of these clients half come and go, and half never do, for comparison."""

# Channels that fare alike: by what they are called, and so by who knows them.
TICKER, ORDERS, ROOM, USER, QUIETS, TEAM, SAME = "ticker", "orders", "room", "user", "quiet", "team", "same"
GROUPS = frozenset((TICKER, ORDERS, ROOM, USER, QUIETS, TEAM, SAME))
OWN = frozenset((USER, QUIETS))
"""Each of these channels has a single client, so often a single worker knows it."""
DECLARED = ("orders", "alerts")
"""Channels that workers are told are durable: nothing else is published on them."""

DURING, LATE = "during", "late"
"""Phases of the publisher: feeds that begin with the fault, and feeds that begin once it is over."""

_TEAMS = tuple(f"team.{number}" for number in range(4))
_QUIET_PHASES = ("early", DURING, DURING, LATE)


def group(channel: str) -> str:
    """The group a channel belongs to."""
    if channel in DECLARED:
        return ORDERS
    if channel == "lobby":
        return ROOM
    return channel.partition(".")[0]


@dataclass(frozen=True)
class Listener:
    """What one client asks for.

    Args:
        channels: by name.
        patterns: beside them.
        matched: channels that these patterns match and that are published on.
    """

    channels: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    matched: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feed:
    """What is published at a steady rate.

    Args:
        name: of the feed.
        channels: used in turn.
        rate: messages per second.
        plain: some are sent with PUBLISH.
        durable: some are kept; with `plain`, each channel gets one and the other in turn.
        phase: when it begins; empty: at once.
        witness: Redis' answers to it tell how many workers listen.
        markers: every how many messages one has a number of its own, while all others are identical; 0: all have one.
    """

    name: str
    channels: tuple[str, ...]
    rate: float
    plain: bool = False
    durable: bool = False
    phase: str = ""
    witness: bool = False
    markers: int = 0


def _mixed(number: int) -> Listener:
    # Beside the calm channel the last id is often one of the client's own channel, plain or durable.
    return Listener((f"user.{number}", "lobby" if number % 2 else "room"))


def _quiet(number: int) -> Listener:
    return Listener((f"quiet.{_QUIET_PHASES[number % 4]}.{number}",))


def _pattern(number: int) -> Listener:
    # A fifth of them has the pattern alone.
    names = _TEAMS[number % 5 : number % 5 + 1]
    return Listener(names, ("team.*",), _TEAMS)


_LISTENERS: Mapping[str, Callable[[int], Listener]] = {
    PLAIN: lambda _: Listener(("ticker",)),
    DURABLE: lambda _: Listener(DECLARED),
    MIXED: _mixed,
    QUIET: _quiet,
    PATTERN: _pattern,
    SAME_MOVING: lambda _: Listener(("same",)),
    SAME_STILL: lambda _: Listener(("same",)),
}


def listeners(column: str, count: int) -> list[Listener]:
    """The clients of a column."""
    return [_LISTENERS[column](number) for number in range(count)]


def feeds(clients: Mapping[str, Sequence[Listener]], rate: float) -> list[Feed]:
    """What is published for these clients.

    Args:
        clients: by column.
        rate: messages per second on each of the shared channels.
    """
    own = [name for column in (MIXED, QUIET) for one in clients.get(column, ()) for name in one.channels]

    def named(prefix: str) -> tuple[str, ...]:
        return tuple(name for name in own if name.startswith(prefix))

    found = [
        Feed("ticker", ("ticker",), rate, plain=True, witness=True),
        Feed("orders", DECLARED, rate, durable=True),
        Feed("room", ("room",), rate, plain=True),
        Feed("lobby", ("lobby",), rate / 10, plain=True),
        Feed("user", named("user."), 2 * rate, plain=True, durable=True),
        Feed("early", named("quiet.early."), rate / 2, plain=True, durable=True),
        # Fast, so that clients that are away for half a second miss something.
        Feed(DURING, named(f"quiet.{DURING}."), 2.5 * rate, plain=True, durable=True, phase=DURING),
        Feed(LATE, named(f"quiet.{LATE}."), rate, plain=True, durable=True, phase=LATE),
        Feed("team", _TEAMS, rate, plain=True, durable=True),
    ]
    if SAME_MOVING in clients:
        found.append(Feed("same", ("same",), 2000, plain=True, phase=DURING, markers=500))
    return [feed for feed in found if feed.channels]
