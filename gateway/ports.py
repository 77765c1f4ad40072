"""What the parts expect of each other; small on purpose."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event
from gateway.memory.hole import Hole
from gateway.memory.position import Position
from gateway.memory.topic import Topic


class TooManyTopics(Exception):
    """The worker's limit of different channels and patterns is reached."""


class NotCounted(Exception):
    """A tick can't be had just now: Redis is away, or refuses to count."""


class Interrupted(Exception):
    """The connection to Redis was lost meanwhile: an answer may lack what came before."""


class PublishFailed(Exception):
    """A message could not be handed to Redis; says why."""


class Heard(NamedTuple):
    """A message that has come, in its place on each topic it is heard through.

    Attributes:
        channel: where it was published.
        event: what it is.
        topics: through which it is heard.
        positions: on each of them; None where Redis doesn't count.
    """

    channel: str
    event: Event
    topics: tuple[Topic, ...]
    positions: tuple[Position | None, ...]


class Receiver(Protocol):
    """Who is told of what comes from Redis; nothing here may block."""

    def deliver(self, batch: Sequence[Heard]) -> None:
        """Messages that have arrived together, in the order of their publishing. No tick came between them."""

    def commit(self) -> None:
        """Who is there now, and where the topics are, counts for what was delivered; both are about to change."""

    def opened(self, topics: Sequence[Topic]) -> None:
        """Everything published on them from now on is heard."""

    def refused(self, topic: Topic) -> None:
        """Redis does not let this worker subscribe to it."""

    def lost(self) -> None:
        """The connection to Redis is lost. The topics still know where."""

    def ticked(self) -> None:
        """A tick was heard."""

    def over(self, topics: Sequence[Topic]) -> None:
        """These channels are over; the message that says so was delivered."""


class Source(Protocol):
    """Where messages come from."""

    @property
    def problem(self) -> str | None:
        """Why no messages can arrive just now, in a few words; None while they can."""


class Topics(Protocol):
    """The channels and patterns this worker listens to: intent, recorded at once and reconciled with Redis later."""

    def want(self, name: str, is_pattern: bool) -> Topic:
        """The topic of that name, to be subscribed to if it isn't yet.

        Raises:
            TooManyTopics: it would be one too many, or one pattern too many.
        """

    def release(self, topic: Topic) -> None:
        """Nobody listens to the topic now; it lingers."""


class TopicCounts(Protocol):
    """How many there are."""

    def __len__(self) -> int:
        """Channels and patterns."""

    @property
    def patterns(self) -> int:
        """Patterns."""


class Clock(Protocol):
    """Redis' clock."""

    async def verify(self, elsewhere: bool = False) -> None:
        """Wait until a tick has been heard that was requested after this was called.

        Args:
            elsewhere: there may be a newer master than the one that is listened to.

        Raises:
            NotCounted: there is none to be had.
        """


class Newest(NamedTuple):
    """Durable events by topic, oldest first, and by topic why there is more that can't be given."""

    entries: Mapping[Topic, list[Entry]]
    cut: Mapping[Topic, str]


class Past(Protocol):
    """What others know: the other workers, and Redis."""

    async def find(self, topic: Topic, hole: Hole, workers: bool = True) -> list[Kept]:
        """What is missing in a hole: events, and holes that say why the rest is missing.

        Args:
            workers: whether to ask the other workers, too, and not Redis alone.
        """

    async def newest(self, ends: Mapping[Topic, Position], count: int, after: tuple[int, int] | None) -> Newest:
        """The newest durable events of a stream's topics, within the limits of one replay; none if they can't be had.

        Args:
            ends: up to which position, by topic.
            count: how many of each topic; 0: as many as there are.
            after: an id that the previous version gave, after which they begin (milliseconds and number); None: from
                the first.
        """


class Revoker(Protocol):
    """Where grants are revoked."""

    async def revoke(self, sub: str) -> None:
        """From now on no grant counts that the subject has had before.

        Raises:
            PublishFailed: Redis can't be reached or refuses.
        """


class StoreFailed(Exception):
    """What is kept in Redis can't be read or written just now; says why."""


class StoredTicket(NamedTuple):
    """What is known of a ticket; None: nothing, or no longer.

    Attributes:
        kept: what it is for.
        used: what was made of it.
    """

    kept: bytes | None
    used: bytes | None


class Ends(Protocol):
    """Which channels are over."""

    async def over(self, channels: Sequence[str]) -> list[bool]:
        """Whether each of them is.

        Raises:
            StoreFailed: Redis can't be reached.
        """


class TicketStore(Protocol):
    """Where tickets are kept for all workers, by names from which nobody can tell the ticket."""

    async def time(self) -> float:
        """Seconds since 1970, by the clock that dates revocations.

        Raises:
            StoreFailed: Redis can't be reached or refuses.
        """

    async def keep(self, name: str, content: bytes, seconds: float) -> None:
        """Keep a new ticket for so long.

        Raises:
            StoreFailed: Redis can't be reached or refuses.
        """

    async def find(self, name: str) -> StoredTicket:
        """What is kept under that name.

        Raises:
            StoreFailed: as `keep`.
        """

    async def use(self, name: str, content: bytes, seconds: float) -> bool:
        """Keep for so long what is made of a ticket; whether nobody else has done so before.

        Raises:
            StoreFailed: as `keep`; it may have been kept all the same.
        """


class Publisher(Protocol):
    """Where messages are published."""

    async def publish(self, channel: str, payload: bytes) -> int:
        """Publish as `redis-cli PUBLISH` would.

        Returns:
            How many Redis connections received it.

        Raises:
            PublishFailed: Redis can't be reached or refuses.
        """

    async def publish_durable(self, channel: str, payload: bytes) -> str:
        """Publish and keep.

        Returns:
            The event's id on streams of this channel alone.

        Raises:
            PublishFailed: Redis can't be reached or refuses.
        """

    async def end(self, channel: str) -> str:
        """Say that a channel is over, until something durable is published on it; the second time does nothing.

        Returns:
            The id of its end on streams of this channel alone.

        Raises:
            PublishFailed: Redis can't be reached or refuses.
        """
