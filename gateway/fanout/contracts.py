"""What the parts expect of each other; small on purpose."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.fanout.ids import DurableId
from gateway.fanout.past import Past
from gateway.fanout.record import PeerPast, TopicRecord
from gateway.fanout.topic import Topic


class Publication(NamedTuple):
    """One message as it came from Redis, with all the topics it matched.

    A worker subscribed to a channel and to a pattern that matches it hears each message once for each of them.
    The source puts them together again; only when they arrive in different batches is `seen` not empty.
    """

    channel: str
    payload: bytes
    topics: tuple[Topic, ...]
    seen: tuple[Topic, ...] = ()
    """Topics whose subscribers had it with an earlier batch."""


class Listener(Protocol):
    """Who is told of what comes."""

    @property
    def newest(self) -> DurableId:
        """The newest durable id known."""

    @property
    def heard(self) -> DurableId:
        """Every durable message up to this id, on channels that were subscribed to, has been received."""

    def deliver(self, batch: Sequence[Publication]) -> None:
        """Messages, in the order of their publishing; must not block."""

    def opened(self, topic: Topic) -> None:
        """The topic is subscribed to."""

    def given_up(self, topic: Topic) -> None:
        """It no longer is."""

    @property
    def place(self) -> int:
        """Where what was received last stands in the order."""

    def export(self, channels: Collection[str] | None, after: str | None, room: int) -> list[bytes]:
        """What another worker can use of what this one knows, in parts.

        Args:
            channels: which it asks about; None: all.
            after: the id after which it wants to know what came; None: all that is recent.
            room: bytes of events that may be told.
        """

    def take_over(self, topics: Sequence[Topic], answers: Iterable[list[TopicRecord]]) -> set[str]:
        """Take over what other workers know of topics that are not opened yet.

        Returns:
            The channels they knew.
        """

    def caught_up(self, topics: Sequence[Topic]) -> None:
        """What has come on those topics meanwhile is delivered; from now on they are heard with all others."""

    def refused(self, topic: Topic, why: str) -> None:
        """Redis does not let us subscribe to it."""

    def interrupted(self, pasts: Mapping[str, Past] | None) -> None:
        """The connection is back, and everything subscribed to again.

        Args:
            pasts: what durable history has of each channel since `heard`; None if it could not be read.
        """


class Source(Protocol):
    """Where messages come from."""

    @property
    def problem(self) -> str | None:
        """Why no messages can arrive just now, in a few words; None while they can."""


class Peers(Protocol):
    """The other workers."""

    async def after(self, channels: Sequence[str], last_event_id: str) -> PeerPast | None:
        """What they know that came after an id this one doesn't know; None if they don't know it, either."""


class PublishFailed(Exception):
    """A message could not be handed to Redis; says why."""


class Publisher(Protocol):
    """Where messages are published."""

    async def publish(self, channel: str, payload: bytes) -> int:
        """Publish as `redis-cli PUBLISH` would.

        Returns:
            How many Redis connections received it.

        Raises:
            PublishFailed: Redis can't be reached or refused.
        """

    async def publish_durable(self, channel: str, payload: bytes) -> str:
        """Publish and keep.

        Returns:
            The event's id.

        Raises:
            PublishFailed: Redis can't be reached or refused.
        """
