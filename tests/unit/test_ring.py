"""Ids that mean the same on every worker: properties over many histories."""

from collections.abc import Sequence
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.event import Event, parse
from gateway.fanout.gaps import gap
from gateway.fanout.history import History
from gateway.fanout.ids import DurableId, RingId, parse_durable, parse_ring
from gateway.fanout.resume import Limits, replay_after
from gateway.fanout.topic import Topic
from gateway.settings import Settings

START = 1_790_000_000.0


class FakeWorker:
    """One worker's memory of one channel, with a clock that is wrong by `skew` seconds."""

    def __init__(self, skew: float = 0.0, **settings: object) -> None:
        self.skew = skew
        self.now = START
        self.history = History(Settings.load(settings), lambda: self.now)
        self.topic = Topic("news", False)
        self.ids: list[str] = []
        self.history.open(self.topic)

    def hear(self, time: float, payload: str) -> str:
        self.now = time
        with mock.patch("gateway.fanout.history.time.time", return_value=time + self.skew):
            event = self.history.record("news", (self.topic,), parse(payload.encode(), 10_000, 256), payload.encode())
        assert event is not None
        assert event.id is not None
        self.ids.append(event.id)
        return event.id

    def after(self, id_: str) -> list[Event]:
        replay = replay_after((self.topic,), id_, {}, self.history, Limits(10_000, 10_000_000))
        return [event for _, event in replay.events]


def _data(events: Sequence[Event]) -> list[str]:
    return [
        line.removeprefix("data: ")
        for event in events
        for line in event.frame.decode().split("\n")
        if "data:" in line
    ]


def _is_gap(events: Sequence[Event]) -> bool:
    return bool(events) and events[0].type == "gateway.gap"


payloads = st.lists(st.sampled_from("aab"), min_size=1, max_size=60)


@given(payloads, st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 30), st.data())
def test_a_client_that_moves_gets_what_it_missed_or_a_gap(
    sent: list[str], skew: float, other_skew: float, late: int, data: st.DataObject
) -> None:
    """Messages a second apart, many of them alike; clocks up to 2 s wrong; the second worker joins late.

    Half a minute of repetitions lie within the tolerance of the clocks, so which one is meant can't always be told;
    then too much may be sent again, but of messages that differ from their neighbours nothing may be lost.
    """
    first, second = FakeWorker(skew), FakeWorker(other_skew)
    for place, payload in enumerate(sent):
        first.hear(START + place, payload)
        if place >= late:
            second.hear(START + place + 0.003, payload)
    at = data.draw(st.integers(0, len(sent) - 1))
    replayed = second.after(first.ids[at])
    if _is_gap(replayed):
        # It had not heard this message and both before it; with wrong clocks it is unsure of that a little longer.
        assert at < late + 2 + (abs(skew - other_skew) + 0.5 if abs(skew - other_skew) > 0.4 else 0)
        return
    missed = sent[at + 1 :]
    if abs(skew - other_skew) < 0.4:
        assert _data(replayed) == missed
    else:
        # A repetition was taken for it: then the three messages before were the same as those before the right one.
        got = len(replayed)
        found = len(sent) - got - 1
        assert sent[max(0, found - 2) : found + 1] == sent[max(0, at - 2) : at + 1]
        assert abs(found - at) <= 4


@given(payloads, st.floats(-2, 2), st.data())
def test_with_redis_time_every_repetition_is_told_apart(sent: list[str], skew: float, data: st.DataObject) -> None:
    """What workers do in practice: they measure how far their clocks are from Redis', to a few milliseconds."""
    first, second = FakeWorker(), FakeWorker(skew)
    second.history.clock_offset_ms = -int(skew * 1000) + data.draw(st.integers(-20, 20))
    for place, payload in enumerate(sent):
        first.hear(START + place * 0.1, payload)
        second.hear(START + place * 0.1 + 0.002, payload)
    at = data.draw(st.integers(0, len(sent) - 1))
    replayed = second.after(first.ids[at])
    if at < 2:  # neither knew what came before, so neither's ids mean anything to the other
        assert _is_gap(replayed)
    else:
        assert _data(replayed) == sent[at + 1 :]


@given(payloads)
def test_no_worker_gives_an_id_twice(sent: list[str]) -> None:
    worker = FakeWorker()
    for payload in sent:
        worker.hear(START, payload)  # all within one millisecond
    assert len(set(worker.ids)) == len(sent)
    for at, id_ in enumerate(worker.ids):
        assert _data(worker.after(id_)) == sent[at + 1 :]


@given(payloads, st.integers(1, 10))
def test_what_was_evicted_is_a_gap(sent: list[str], kept: int) -> None:
    worker = FakeWorker(history_events=kept)
    for place, payload in enumerate(sent):
        worker.hear(START + place * 10, payload)
    for at, id_ in enumerate(worker.ids):
        replayed = worker.after(id_)
        if at >= len(sent) - kept:
            assert _data(replayed) == sent[at + 1 :]
        else:
            assert _is_gap(replayed)


def test_after_an_unknown_id_comes_what_is_certainly_later() -> None:
    first, second = FakeWorker(), FakeWorker()
    unheard = first.hear(START, "only the first worker heard it")
    for place in range(5):
        second.hear(START + 0.5 + place, str(place))
    replayed = second.after(unheard)
    assert _is_gap(replayed)
    assert _data(replayed[1:]) == ["1", "2", "3", "4"], "0 may have come before"
    assert len(second.after("not-even-a-time")) == 1


def test_limits_of_size_and_age_hold() -> None:
    worker = FakeWorker(history_bytes=3000, history_total_bytes=2000, history_age=10)
    for place in range(100):
        worker.hear(START + place, "x" * 100)
    assert worker.topic.ring is not None
    assert 0 < worker.history.bytes <= 2000
    assert worker.history.bytes == worker.topic.ring.bytes
    worker.now += 20
    worker.history.sweep()
    # Only the newest is left: who has seen it has missed nothing, however long ago that was.
    assert len(worker.topic.ring) == worker.history.entries == 1
    assert worker.after(worker.ids[-1]) == []
    assert _is_gap(worker.after(worker.ids[-2]))


def test_ids_go_on_alike_over_a_break_that_all_had() -> None:
    first, second = FakeWorker(), FakeWorker()
    for worker in (first, second):
        for place, payload in enumerate("abcd"):
            worker.hear(START + place, payload)
        worker.history.record_gap(worker.topic, gap("news", "redis_lost", None))
        for place, payload in enumerate("efgh", 10):
            worker.hear(START + place, payload)
    assert first.ids[2:] == second.ids[2:]
    after = second.after(first.ids[3])
    assert after[0].type == "gateway.gap"
    assert _data(after[1:]) == list("efgh")


def test_forms_of_ids() -> None:
    assert parse_ring("1790000000123-9f3a61c2") == RingId(1790000000123, "9f3a61c2")
    assert parse_durable("1790000000123-9f3a61c2") is None
    assert parse_durable("1790000000123-7") == DurableId(1790000000123, 7)
    assert parse_durable("1790000000123-12345678") is None, "eight digits are a hash"
    for text in ("", "x", "1-2", "1790000000123-", "１790000000123-7", "1790000000123-7\n"):
        assert parse_durable(text) is None
        assert parse_ring(text) is None
    assert DurableId(2, 0) > DurableId(1, 9)
