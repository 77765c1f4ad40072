"""Messages of one channel that follow each other."""

from gateway.ports import Heard


class Run:
    """What is delivered together.

    Attributes:
        channel: where they were published.
        topics: on which they were heard.
        events: the messages.
        positions: of each, by topic.
    """

    __slots__ = ("channel", "events", "positions", "topics")

    def __init__(self, heard: Heard) -> None:
        self.channel = heard.channel
        self.topics = heard.topics
        self.events = [heard.event]
        self.positions = [heard.positions]

    def add(self, heard: Heard) -> None:
        """Another one of the same channel, heard on the same topics."""
        self.events.append(heard.event)
        self.positions.append(heard.positions)
