"""All attacks, by name."""

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from attacks import connections, guards, publishers, readers, tokens
from attacks.target import Target


@dataclass(frozen=True)
class Attack:
    """One of them.

    Args:
        name: in the table.
        run: attacks until it is cancelled.
        prepare: what is done before, and doesn't count.
        guards: what says who may do what on that worker, and gives its settings; none: everything is public.
    """

    name: str
    run: Callable[[Target], Coroutine[Any, Any, None]]
    prepare: Callable[[Target], Coroutine[Any, Any, None]] | None = None
    guards: Sequence[Callable[[], AbstractContextManager[Mapping[str, Any]]]] = ()

    @property
    def what(self) -> str:
        """What it does, in a sentence."""
        return (inspect.getdoc(self.run) or "").replace("\n", " ")


_KEYS = (guards.keys,)

ATTACKS = [
    Attack("slow heads", connections.slow_heads),
    Attack("slow bodies", connections.slow_bodies),
    Attack("silent connections", connections.silent),
    Attack("huge heads", connections.huge_heads),
    Attack("connect flood", connections.floods),
    Attack("a million channel names", connections.many_channels),
    Attack("patterns", connections.many_patterns),
    Attack("clients that never read", readers.never_read),
    Attack("replays that nobody reads", readers.replays_unread, readers.keep),
    Attack("replays left at once", readers.replays_left, readers.keep),
    Attack("publish flood", publishers.floods),
    Attack("rejected messages", publishers.rejected),
    Attack("forged internal messages", publishers.forged),
    Attack("bad tokens", tokens.bad, guards=_KEYS),
    Attack("tokens of unknown keys", tokens.unknown_keys, guards=_KEYS),
    Attack("signatures to verify", tokens.signatures, guards=_KEYS),
    Attack("a backend that hangs", tokens.cookies, guards=(guards.keys, guards.hanging_backend)),
]
