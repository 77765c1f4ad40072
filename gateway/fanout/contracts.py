"""What the parts expect of each other; small on purpose."""

from typing import NamedTuple, Protocol

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


class Source(Protocol):
    """Where messages come from."""

    @property
    def problem(self) -> str | None:
        """Why no messages can arrive just now, in a few words; None while they can."""


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
