"""Who listens to one topic."""

from typing import TYPE_CHECKING, TypeAlias

from gateway.fanout.encodings import Encoding
from gateway.memory.topic import Topic

if TYPE_CHECKING:
    # Only the type: a subscriber holds its topics, and an audience its subscribers.
    from gateway.fanout.subscriber import Subscriber

Groups: TypeAlias = "dict[Encoding, set[Subscriber]]"


class Audience:
    """The subscribers of a topic.

    Attributes:
        single: those that listen to this topic alone, by the encoding they share.
        joint: those that listen to more: to them the order between topics matters, and so do all topics' positions.
            And those whose ids are their own for another reason.
        size: how many there are, including those that have not joined yet.
        version: changes with those that have joined.
        last_delivery: when something was last delivered (event loop time, seconds).
        alone: a tuple of this topic only, which all who listen to nothing else share.
    """

    __slots__ = ("alone", "joint", "last_delivery", "single", "size", "version")

    def __init__(self, topic: Topic) -> None:
        self.single: Groups = {}
        self.joint: Groups = {}
        self.size = 0
        self.version = 0
        self.last_delivery = 0.0
        self.alone = (topic,)

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

    def everybody(self) -> "list[Subscriber]":
        """Those that have joined."""
        return [each for groups in (self.single, self.joint) for group in groups.values() for each in group]

    def has(self, subscriber: "Subscriber") -> bool:
        """Whether the subscriber gets what comes."""
        return subscriber in self._groups(subscriber).get(subscriber.encoding, ())

    def _groups(self, subscriber: "Subscriber") -> Groups:
        return self.single if subscriber.shares_ids else self.joint
