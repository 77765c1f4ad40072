"""Pings: to idle streams only, and never too late."""

from itertools import pairwise

from gateway.fanout.encodings import Encodings
from gateway.fanout.pinger import Pinger
from gateway.fanout.subscriber import Subscriber

INTERVAL = 15.0


class World:
    """A pinger with a clock of its own and one subscriber; notes when it was written to."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.now = 1000.0
        self.last_delivery = 0.0
        self.pinger = Pinger(interval, lambda: self.now, lambda _: self.last_delivery)
        self.pinger.ping = self._ping
        self.subscriber = Subscriber((), Encodings(0).get(chunked=True, named=False))
        self.pinged: list[float] = []
        self.pinger.add(self.subscriber)

    def _ping(self, subscriber: Subscriber) -> None:
        assert subscriber is self.subscriber
        self.pinged.append(self.now)

    def pass_time(self, seconds: float, deliver_every: float | None = None) -> None:
        next_delivery = self.now + (deliver_every or 0)
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            if deliver_every and self.now >= next_delivery:
                self.last_delivery = self.now
                next_delivery += deliver_every
            self.pinger.turn()


def test_an_idle_stream_is_never_silent_for_longer_than_the_interval() -> None:
    world = World()
    world.pass_time(300)
    times = [1000.0, *world.pinged]
    silences = [later - earlier for earlier, later in pairwise(times)]
    assert silences
    assert max(silences) <= INTERVAL
    assert min(silences) > INTERVAL * 0.8, "pinged more often than needed"
    assert world.pinger.pings == len(world.pinged)


def test_a_busy_stream_is_not_pinged() -> None:
    world = World()
    world.pass_time(300, deliver_every=5)
    assert world.pinged == []


def test_silence_counts_from_the_last_delivery() -> None:
    world = World()
    world.pass_time(20, deliver_every=7)
    last = world.last_delivery
    world.pass_time(20)
    assert INTERVAL * 0.8 < world.pinged[0] - last <= INTERVAL


def test_a_stream_that_left_is_forgotten() -> None:
    world = World()
    world.pinger.discard(world.subscriber)
    world.pass_time(60)
    assert world.pinged == []
    assert not world.pinger._slots


def test_zero_means_no_pings() -> None:
    world = World(interval=0)
    world.pass_time(1000)
    assert world.pinged == []
    world.pinger.discard(world.subscriber)
