"""What the gateway promises for one thing that breaks."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from chaos.columns import GROUPS, ORDERS, OWN


class Keeps(Enum):
    """What Redis has, in the end, of the durable messages it acknowledged.

    With SOME and NOTHING the harness asks Redis. With NOTHING it has also lost what it knew of the past, so a client
    that is away at that moment begins anew when it comes back.
    """

    ALL = "all"
    SOME = "some"
    NOTHING = "nothing"


DURABLE_ONLY = frozenset((ORDERS,))
SHARED = GROUPS - OWN
NOWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Promise:
    """What is due beyond what always is (nothing lost in silence, twice or out of order; nobody gives up).

    Args:
        keeps: what Redis keeps.
        calm: groups of channels on which nothing breaks, so that no client gets a gap event.
        unmoved: groups on which only clients whose stream is cut off may get one.
        told: columns in which every client gets one.
    """

    keeps: Keeps = Keeps.ALL
    calm: frozenset[str] = GROUPS
    unmoved: frozenset[str] = NOWHERE
    told: frozenset[str] = NOWHERE

    def calm_on(self, group: str) -> Literal["", "unmoved", "always"]:
        if group in self.calm:
            return "always"
        return "unmoved" if group in self.unmoved else ""
