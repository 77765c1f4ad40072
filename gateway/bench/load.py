"""How much is asked of the server."""

from dataclasses import dataclass


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

    @property
    def messages(self) -> int:
        return max(1, round(self.rate * self.duration))


def share(channel: int, channels: int, messages: int) -> int:
    """How many of the first `messages` messages went to this channel."""
    return (messages - channel + channels - 1) // channels
