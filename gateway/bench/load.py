"""How much is asked of the server."""

from dataclasses import dataclass

OWN_FIRST = 1_000_000_000
"""Number of the first message on a stream's own channel; on shared channels numbers stay below it."""


@dataclass(frozen=True)
class Load:
    """So many streams, and so many messages to them.

    Args:
        streams: open streams in all.
        rate: messages per second, over all channels together.
        duration: seconds of publishing.
        size: bytes of a payload.
        channels: stream i listens to channel i modulo this; the messages go round them in turn.
        processes: reading processes the streams are spread over.
        all_channels: each stream listens to all channels instead of one.
        varied: payloads are JSON of many fields whose values differ, instead of one letter over and over: to a
            stream that compresses them it matters.
        at_once: streams that may be on their way at once while they are opened: the default keeps a server busy
            and doesn't fill its backlog.
        own_every: each stream listens to a channel of its own as well as to the shared one, and one in so many of
            these own channels gets messages; 0: there are no own channels.
        own_rate: messages per second on each own channel that gets any.
    """

    streams: int
    rate: float
    duration: float
    size: int = 110
    channels: int = 1
    processes: int = 1
    all_channels: bool = False
    varied: bool = False
    at_once: int = 256
    own_every: int = 0
    own_rate: float = 0.0

    @property
    def messages(self) -> int:
        """On the channels that are not a stream's own."""
        return max(1, round(self.rate * self.duration))

    @property
    def own_channels(self) -> int:
        """Own channels that get messages."""
        return -(-self.streams // self.own_every) if self.own_every else 0

    @property
    def own_messages(self) -> int:
        """On all own channels together."""
        return round(self.own_channels * self.own_rate * self.duration)


def share(channel: int, channels: int, messages: int) -> int:
    """How many of the first `messages` messages went to this channel."""
    return (messages - channel + channels - 1) // channels
