"""What arrives together is delivered so that ids never go backwards."""

from gateway.fanout.delivery import Delivery
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.listening import Listening
from gateway.memory.place import parse_place
from gateway.memory.tick import Tick
from gateway.memory.topic import Topic
from gateway.metrics import Metrics
from gateway.ports import Heard
from gateway.settings import Settings
from tests.unit.model.client import frames


class _Topics:
    """A worker's topics, for which nobody asks Redis."""

    def want(self, name: str, is_pattern: bool) -> Topic:
        raise NotImplementedError

    def release(self, topic: Topic) -> None:
        pass


def test_a_patterns_subscriber_gets_the_channels_in_their_order() -> None:
    """Grouped by channel, 0 2 1 was delivered; whoever was cut off behind 2 came back with an id behind 1."""
    settings, metrics = Settings(), Metrics()
    history = History(settings, lambda: 0.0)
    listening = Listening(history)
    pattern = Topic("a*", True, history.ring())
    listening.want((True, b"a*"), pattern)
    listening.connect("server")
    listening.subscribed((True, b"a*"), True)
    listening.tick(Tick(1, 1, "server", {}))
    members = Members(settings, 10, _Topics(), metrics, lambda: 0.0)
    delivery = Delivery(settings, members, listening, metrics, lambda: 0.0)
    subscriber = members.register([pattern], Encodings(0).get(chunked=False, named=False))
    members.join(subscriber)
    sent: list[bytes] = []

    def send(piece: bytes) -> int:
        sent.append(piece)
        return len(piece)

    subscriber.send = send
    channels = ["a1", "a2", "a1", "a1", "a2"]
    delivery.deliver(
        [
            Heard(channel, Event(b"%d" % number), (pattern,), (listening.count(pattern, 0),))
            for number, channel in enumerate(channels)
        ]
    )
    received = frames(b"".join(sent))
    assert [frame.data for frame in received] == ["0", "1", "2", "3", "4"]
    places = [parse_place(frame.id or "")[1] for frame in received]
    assert [place and place.at(pattern)[3] for place in places] == [1, 2, 3, 4, 5]
    assert metrics.deliveries == 5
