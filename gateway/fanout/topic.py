"""What one subscription in Redis brings, and who wants it."""

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from gateway.fanout.encoding import Encoding
from gateway.fanout.ring import Ring

if TYPE_CHECKING:
    # Only the type: a subscriber holds its topics, and a topic's own code needs no more than their encoding.
    from gateway.fanout.subscriber import Subscriber


Groups: TypeAlias = "dict[Encoding, set[Subscriber]]"


class TopicRefused(Exception):
    """Redis does not let this gateway subscribe to the topic; says why."""


class Topic:
    """A channel, or a pattern of channels, that at least one subscriber wants or lately wanted.

    Attributes:
        name: the channel's name, or the pattern, as clients spell it.
        is_pattern: whether `name` is a pattern.
        single: the subscribers that listen to this channel alone, by the encoding they share.
        joint: those that listen to more, or to a pattern: to them the order between channels matters.
        version: changes with its subscribers.
        size: how many subscribers there are, those included that have not joined yet.
        ring: recent events; None until Redis has confirmed for the first time.
        refusal: why Redis refused the subscription, or None.
        confirmed: whether Redis has confirmed the subscription on the connection in use.
        last_delivery: when something was last delivered (event loop time, seconds).
    """

    __slots__ = (
        "_tuple",
        "_waiters",
        "confirmed",
        "is_pattern",
        "joint",
        "last_delivery",
        "name",
        "refusal",
        "ring",
        "single",
        "size",
        "version",
    )

    def __init__(self, name: str, is_pattern: bool) -> None:
        self.name = name
        self.is_pattern = is_pattern
        self.single: Groups = {}
        self.joint: Groups = {}
        self._tuple: tuple[Topic, ...] = ()
        self.size = 0
        self.version = 0
        self.ring: Ring | None = None
        self.confirmed = False
        self.last_delivery = 0.0
        self.refusal: str | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}

    def as_one(self) -> "tuple[Topic, ...]":
        """A tuple of this topic only, which all who listen to nothing else share."""
        if not self._tuple:
            self._tuple = (self,)
        return self._tuple

    def forget_tuple(self) -> None:
        """Nobody needs it now; and the two would hold each other."""
        self._tuple = ()

    def add(self, subscriber: "Subscriber") -> None:
        """From now on the subscriber gets what comes."""
        self.version += 1
        self._groups(subscriber).setdefault(subscriber.encoding, set()).add(subscriber)

    def discard(self, subscriber: "Subscriber") -> None:
        """The subscriber gets nothing any more, if it ever did."""
        self.version += 1
        groups = self._groups(subscriber)
        group = groups.get(subscriber.encoding)
        if group is not None:
            group.discard(subscriber)
            if not group:
                del groups[subscriber.encoding]

    def _groups(self, subscriber: "Subscriber") -> Groups:
        return self.joint if self.is_pattern or len(subscriber.topics) > 1 else self.single

    def confirm(self) -> None:
        """Redis has confirmed: whoever waits may go on."""
        self.confirmed = True
        self.refusal = None
        self._wake_all()

    def refuse(self, why: str) -> None:
        """Redis has refused: whoever waits is told."""
        self.refusal = why
        self._wake_all()

    async def wait_answered(self, waiter: asyncio.Future[None]) -> None:
        """Wait until Redis has answered the subscription, or somebody else sets the waiter's result."""
        # A future for each, which costs less than sharing one: that has to be shielded from those who give up.
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    def _wake_all(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<{'pattern' if self.is_pattern else 'channel'} {self.name!r}, {self.size} subscribers>"
