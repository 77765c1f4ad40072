"""What one client address may take of a worker."""

from typing import Any

from gateway.fanout.encodings import Encodings
from gateway.fanout.quotas import Quotas
from gateway.fanout.subscriber import Subscriber
from gateway.memory.history import History
from gateway.memory.topic import Topic
from gateway.settings import Settings


class Door:
    """Lets streams in as the endpoint does."""

    def __init__(self, **given: Any) -> None:
        self.now = 0.0
        settings = self.settings = Settings(**given)
        limits = settings.address_streams, settings.address_rate, settings.address_channels
        self.quotas = Quotas(*limits, settings.linger, lambda: self.now)
        self._encoding = Encodings(0).get(chunked=True, named=False, gzip=False)

    def open(self, address: str, *names: str) -> Subscriber | None:
        asked = [(name, "*" in name) for name in names or ("news",)]
        if address and self.quotas.exceeded(address, asked):
            return None
        history = History(self.settings, lambda: self.now)
        topics = tuple([Topic(name, is_pattern, history.ring()) for name, is_pattern in asked])
        subscriber = Subscriber(topics, self._encoding)
        self.quotas.add(address, subscriber)
        return subscriber


def test_streams_are_counted_by_address() -> None:
    door = Door(address_streams=2)
    first = door.open("a")
    assert first is not None
    assert door.open("a") is not None
    assert door.open("a") is None
    assert door.open("b") is not None
    assert door.open("") is not None, "an unknown address is nobody's"
    door.quotas.discard(first)
    door.quotas.discard(first)
    assert door.open("a") is not None
    assert door.open("a") is None


def test_new_streams_are_counted_by_second() -> None:
    door = Door(address_rate=2)
    assert [door.open("a") is not None for _ in range(3)] == [True, True, False]
    assert door.open("b") is not None
    assert not any(door.quotas.exceeded("", [("news", False)]) for _ in range(3)), "an unknown address is nobody's"
    door.now += 0.5
    assert [door.open("a") is not None for _ in range(2)] == [True, False]


def test_channels_are_counted_once() -> None:
    door = Door(address_channels=3)
    first = door.open("a", "x", "y")
    assert first is not None
    second = door.open("a", "y", "y*")
    assert second is not None
    assert door.open("a", "z") is None
    assert door.open("a", "x", "y", "y*") is not None
    door.quotas.discard(first)
    door.now += door.settings.linger
    door.quotas.sweep()
    assert door.open("a", "z") is None, "others still have x"
    assert door.open("b", "1", "2", "3", "4") is None


def test_channels_count_for_as_long_as_they_linger() -> None:
    """Whoever leaves at once could have a worker subscribe to a million channels, one after the other."""
    door = Door(address_channels=10, linger=30)
    for number in range(2):
        stream = door.open("a", *[f"{number}.{each}" for each in range(5)])
        assert stream is not None
        door.quotas.discard(stream)
        door.now += 10
        door.quotas.sweep()
    assert door.open("a", "new") is None
    assert door.open("a", "1.0") is not None
    door.now += 10
    door.quotas.sweep()
    assert door.open("a", "new") is not None, "the first five are gone"


def test_addresses_are_forgotten() -> None:
    door = Door(address_rate=1)
    streams = [door.open(f"{number}") for number in range(100)]
    assert len(door.quotas) == 100
    for stream in streams[:50]:
        assert stream is not None
        door.quotas.discard(stream)
    door.quotas.sweep()
    assert len(door.quotas) == 100, "else whoever leaves could come again at once"
    door.now += 1
    door.quotas.sweep()
    assert len(door.quotas) == 50


def test_nothing_is_counted_unless_asked_for() -> None:
    assert not Quotas(0, 0.0, 0, 30.0, lambda: 0.0).enabled
