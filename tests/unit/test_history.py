"""What a worker remembers is bounded, and outlives what it need not die with."""

import pytest

from gateway.fanout.event import parse
from gateway.fanout.history import History
from gateway.fanout.topic import Topic
from gateway.settings import Settings


def test_giving_up_a_pattern_keeps_the_ids_of_other_channels() -> None:
    history = History(Settings(), lambda: 0.0)
    pattern, channel = Topic("n*", True), Topic("news", False)
    before = history.chain("news")
    history.chain("nothing")
    history.close(pattern, {channel.name})
    assert history.chain("news") is before
    assert history.chain("nothing").unheard == 2


@pytest.mark.parametrize("events", [0, 5])
def test_the_index_of_events_is_bounded_too(events: int) -> None:
    history = History(Settings(history_events=events), lambda: 0.0)
    topic = Topic("news", False)
    history.open(topic)
    for number in range(5000):
        history.record("news", (topic,), parse(b"%d" % number, 100, 100), b"%d" % number)
    assert history.entries == events
    assert len(history._order) <= 2 * events + 1001
