"""What one client may take of a worker: one address, or one subject."""

from collections import Counter, deque
from collections.abc import Callable, Iterable

from gateway.fanout.budget import Budget
from gateway.fanout.subscriber import Subscriber
from gateway.memory.topic import Topic


class _Share:
    """One client's.

    Attributes:
        streams: how many are open, or about to be.
        topics: how many of these each topic is in.
        budget: of new streams per second.
    """

    __slots__ = ("budget", "streams", "topics")

    def __init__(self, budget: Budget) -> None:
        self.streams = 0
        self.topics: Counter[tuple[str, bool]] = Counter()
        self.budget = budget


class Quotas:
    """Counts streams, new streams and channels by client.

    A channel counts for as long as the worker stays subscribed to it, so that whoever leaves at once can't have it
    subscribe to new ones all the time.

    Args:
        streams: how many a client may have; 0: no limit, here and below.
        rate: new ones per second.
        channels: different channels and patterns in all of them.
        linger: seconds for which a channel counts after its stream has ended.
        clock: seconds, monotonic.
    """

    def __init__(self, streams: int, rate: float, channels: int, linger: float, clock: Callable[[], float]) -> None:
        self.enabled = bool(streams or rate or channels)
        self._streams = streams
        self._rate = rate
        self._channels = channels
        self._clock = clock
        self._linger = linger
        self._shares: dict[str, _Share] = {}
        # Topics of streams that have ended: until when they count, and for whom.
        self._lingering: deque[tuple[float, _Share, tuple[Topic, ...]]] = deque()
        self._owners: dict[Subscriber, str] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def exceeded(self, client: str, names: Iterable[tuple[str, bool]]) -> bool:
        """Whether one more stream of these channels and patterns would be too much; if not, it is counted as new.

        Nobody is turned away who isn't known (empty): all of them would share one.
        """
        if not client:
            return False
        share = self._shares.get(client)
        if share is None:
            share = self._shares[client] = _Share(Budget(self._rate, self._clock))
        if self._streams and share.streams >= self._streams:
            return True
        if self._channels and len(share.topics.keys() | set(names)) > self._channels:
            return True
        return not share.budget.take()

    def add(self, client: str, subscriber: Subscriber) -> None:
        """The stream has been let in."""
        if not client:
            return
        share = self._shares[client]
        share.streams += 1
        if self._channels:
            share.topics.update((topic.name, topic.is_pattern) for topic in subscriber.topics)
        self._owners[subscriber] = client

    def discard(self, subscriber: Subscriber) -> None:
        """The stream has ended."""
        client = self._owners.pop(subscriber, None)
        if client is None:
            return
        share = self._shares[client]
        share.streams -= 1
        if self._channels:
            self._lingering.append((self._clock() + self._linger, share, subscriber.topics))

    def sweep(self) -> None:
        """Forget clients without streams that could open as many as any other; called every second or so."""
        now = self._clock()
        while self._lingering and self._lingering[0][0] <= now:
            _, share, topics = self._lingering.popleft()
            for topic in topics:
                key = topic.name, topic.is_pattern
                share.topics[key] -= 1
                if not share.topics[key]:
                    del share.topics[key]
        for client, share in list(self._shares.items()):
            if not share.streams and not share.topics and share.budget.full:
                del self._shares[client]
