"""The way into a stream, and back into it: nobody is let in too early, twice, or at another's expense."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from gateway.fanout.encodings import Encodings
from gateway.fanout.in_band import expiring
from gateway.fanout.turned_away import TopicRefused, TurnedAway
from gateway.memory.catch_up import CatchUp, Wish
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.position import Position
from gateway.memory.topic import State
from gateway.ports import Interrupted, Newest, NotCounted
from tests.unit.entrance import Entrance, Stream, idle, run


def _topics(entrance: Entrance) -> dict[str, bool]:
    """By name, whether nobody listens to it."""
    return {topic.name: entrance.topics.is_idle(topic) for topic in entrance.topics}


# -- streams that are turned away, or give up


@pytest.mark.parametrize("too_many", [("a", "b", "c"), ("a", "b*", "c"), ("a*", "b*", "c*")])
def test_who_asks_for_too_many_topics_leaves_none_behind(too_many: tuple[str, ...]) -> None:
    entrance = Entrance(max_channels=2, linger=0)
    for _ in range(2):
        with pytest.raises(TurnedAway, match="full"):
            entrance.register(*too_many)
        assert all(_topics(entrance).values())
        entrance.topics.take_expired()
        assert len(entrance.topics) == entrance.topics.patterns == 0
    entrance.register("a", "b")


def test_who_asks_for_too_many_patterns_leaves_none_behind() -> None:
    entrance = Entrance(max_patterns=1, linger=0)
    with pytest.raises(TurnedAway, match="full"):
        entrance.register("channel", "a*", "b*")
    assert _topics(entrance) == {"channel": True, "a*": True}
    entrance.register("b*")


def test_who_asks_for_too_many_topics_takes_none_from_others() -> None:
    entrance = Entrance(max_channels=2)
    entrance.register("a")
    with pytest.raises(TurnedAway, match="full"):
        entrance.register("a", "b", "c")
    assert _topics(entrance) == {"a": False, "b": True}
    entrance.register("lingers, and makes room")
    with pytest.raises(TurnedAway, match="full"):
        entrance.register("b")
    assert "a" in _topics(entrance)


@pytest.mark.parametrize("reason", ["draining", "full", "busy"])
def test_who_is_turned_away_at_the_door_asks_redis_for_nothing(reason: str) -> None:
    entrance = Entrance(max_streams=1, accept_rate=1 if reason == "busy" else 0)
    entrance.register("a")
    entrance.members.draining = reason == "draining"
    entrance.members.max_streams += reason != "full"
    with pytest.raises(TurnedAway, match=reason):
        entrance.register("b")
    assert _topics(entrance) == {"a": False}


@pytest.mark.parametrize("last_event_id", [None, "2.1.1"])
@pytest.mark.parametrize("how", ["late", "drained", "refused", "left", "cancelled"])
def test_who_gives_up_waiting_leaves_nothing_behind(how: str, last_event_id: str | None) -> None:
    async def play() -> None:
        entrance = Entrance(subscribe_timeout=5, linger=0)
        stays = entrance.enter("a")
        stream = entrance.enter("a", "b", "c*", last_event_id=last_event_id)
        await idle()
        assert not stream.begun
        expected: dict[str, str] = {"late": "redis_away", "drained": "draining", "left": "redis_away"}
        if how == "late":
            entrance.pass_time(4.9)
            entrance.admission.sweep()
            await idle()
            assert stream.refusal is None
            entrance.pass_time(0.1)
            entrance.admission.sweep()
        elif how == "drained":
            assert stream.subscriber in entrance.admission.drain()
        elif how == "refused":
            refused = entrance.topic("c*")
            refused.state, refused.refusal = State.REFUSED, "no permission"
            entrance.confirm("a", "b")
            entrance.tick()
            entrance.admission.refused(refused)
        elif how == "left":
            stream.leave()
        else:
            stream.task.cancel()
        await idle()
        if how == "refused":
            assert isinstance(stream.refusal, TopicRefused)
            assert str(stream.refusal) == "no permission"
        elif how != "cancelled":
            assert isinstance(stream.refusal, TurnedAway)
            assert stream.refusal.reason == expected[how]
        assert stream.subscriber.closed is not None
        others = {"a": False} if how not in ("late", "drained") else {"a": True}
        assert _topics(entrance) == {**others, "b": True, "c*": True}
        assert len(entrance.members) == (how not in ("late", "drained"))
        assert all(topic.ring.pins == 0 for topic in entrance.topics)
        stays.task.cancel()
        await idle()
        waiting = entrance.admission._waiting
        assert not waiting._waiting
        assert not waiting._by_topic

    run(play)


def test_who_is_refused_while_others_wait_for_the_same_topic() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a", "b"), entrance.enter("b"), entrance.enter("a")]
        await idle()
        refused = entrance.topic("b")
        refused.state, refused.refusal = State.REFUSED, "no permission"
        entrance.admission.refused(refused)
        await idle()
        assert [isinstance(stream.refusal, TopicRefused) for stream in streams[1:]] == [True, False]
        entrance.open("a")
        await idle()
        assert isinstance(streams[0].refusal, TopicRefused), "at the latest when its other topic is open"
        assert streams[2].begun
        assert _topics(entrance) == {"a": False, "b": True}

    run(play)


@pytest.mark.parametrize("answered", [False, True])
def test_who_catches_up_for_too_long_leaves_nothing_behind(answered: bool) -> None:
    async def play() -> None:
        entrance = Entrance(subscribe_timeout=5, linger=0)
        holder = entrance.enter("a")
        await idle()
        entrance.open("a")
        stream = entrance.enter("a", last_event_id="its-publishers")
        drained = entrance.enter("a", last_event_id="its-publishers")
        await idle()
        assert len(entrance.asked.verifying) == 2
        entrance.pass_time(5 if answered else 10)
        await idle()
        if answered:
            entrance.asked.verifying[0].set_result(None)
            await idle()
        assert isinstance(stream.refusal, TurnedAway)
        assert stream.refusal.reason == "behind"
        if answered:
            entrance.admission.drain()
            entrance.asked.verifying[1].set_result(None)
            await idle()
            assert isinstance(drained.refusal, TurnedAway)
            assert drained.refusal.reason == "draining"
        assert entrance.members.all() == [holder.subscriber]
        assert entrance.topic("a").ring.pins == 0
        assert entrance.metrics.streams_closed["behind"] == (1 if answered else 2)

    run(play)


def test_a_stream_with_ids_of_its_own_leaves_nothing_behind() -> None:
    async def play() -> None:
        entrance = Entrance()
        holder = entrance.enter("a", "b")
        await idle()
        entrance.open("a", "b")
        await idle()
        entrance.publish(("a", "0"))
        stream = Stream(entrance, ["a", "b"], Wish(holder.last_event_id, 0, frozenset(["b"])))
        entrance.tick()
        await idle()
        for _ in range(3):
            if entrance.asked.verifying:
                entrance.asked.verifying.pop().set_result(None)
            entrance.tick()
            await idle()
        assert stream.begun
        assert stream.subscriber.suffix.new
        assert entrance.members.special == {stream.subscriber}
        stream.leave()
        assert not entrance.members.special

    run(play)


@pytest.mark.parametrize("topics", [("a",), ("a*",), ("a", "b")])
def test_every_id_of_a_stream_says_whose_it_is(topics: tuple[str, ...]) -> None:
    """Whatever happens to it: it would be rejected with an id that doesn't."""

    async def play() -> None:
        entrance = Entrance(history_events=5000, queue_events=5000)
        plain, first = entrance.enter(*topics), entrance.enter(*topics, proof="p" * 22)
        await idle()
        entrance.open(*topics)
        await idle()
        start = first.last_event_id
        for number in range(1050):  # more than is encoded in one go
            entrance.publish(("a", str(number)))
        entrance.publish(("a", '{"event": "x", "data": "own", "id": "17"}'))
        entrance.lose()
        entrance.open(*topics)
        entrance.others_answer()
        await idle()
        entrance.publish(("a", "after"))
        returned = entrance.enter(*topics, last_event_id=start, proof="q" * 22)
        one_more = Stream(entrance, topics, Wish(history=2, proof="r" * 22))
        nothing = Stream(entrance, topics, Wish(history=2))
        await idle()
        for _ in range(3):
            entrance.others_answer()
            await idle()
        for ends, reading in entrance.asked.reading:  # Redis keeps nothing older
            if not reading.done():
                reading.set_result(Newest({topic: [] for topic in ends}, {}))
        await idle()
        entrance.publish(("a", "last"))
        for stream in (first, returned, one_more, plain, nothing):
            entrance.admission.close(stream.subscriber, "drain", "worker_shutdown")
        for stream, proof in ((first, "p"), (returned, "q"), (one_more, "r")):
            assert stream.texts[-2:] == ["last", "gateway.closing"]
            said = [frame.id for frame in stream.frames if frame.type != "gateway.gap"]
            assert {(id_ or "").rpartition(".")[2] for id_ in said} == {"s" + proof * 22}
        for stream in (plain, nothing):
            assert not [frame for frame in stream.frames if ".s" in (frame.id or "")]
        assert returned.texts[:1050] == first.texts[:1050]

    run(play)


# -- waiting, and what is held meanwhile


def test_a_stream_begins_when_the_last_of_its_topics_is_open() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.enter("a")
        await idle()
        entrance.open("a")
        stream = entrance.enter("a", "b", "p*")
        backwards = entrance.enter("p*", "b", "a")
        for name in ("p*", "b"):
            entrance.publish(("a", "before"))
            await idle()
            assert not stream.begun
            assert not backwards.begun
            entrance.confirm(name)
            await idle()
            assert not stream.begun, "confirmed is not open"
            entrance.tick()
        await idle()
        entrance.publish(("a", "1"), ("p1", "2"), ("b", "3"), ("other", "not ours"))
        for each in (stream, backwards):
            assert each.texts == ["1", "2", "3"]
            assert [frame.type for frame in each.frames].count("gateway.open") == 1
        assert stream.frames[0].data == '{"channels":["a","b"],"patterns":["p*"]}'

    run(play)


def test_events_held_back_keep_their_channels() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.encoding = Encodings(0).get(chunked=False, named=True)
        crowd = [entrance.enter("p*", "x") for _ in range(300)]
        await idle()
        entrance.open("p*", "x")
        await idle()
        channels = ["p1", "p2", "p2", "p3", "p1", "x"]
        for number, channel in enumerate(channels):
            entrance.publish((channel, str(number)))
        await idle()
        for stream in crowd:
            assert [(frame.type, frame.data) for frame in stream.frames[1:]] == [
                (channel, str(number)) for number, channel in enumerate(channels)
            ]

    run(play)


def test_a_pattern_that_comes_later_matches_a_channel_listened_to_before() -> None:
    async def play() -> None:
        entrance = Entrance()
        channel, other = entrance.enter("p1"), entrance.enter("q*")
        await idle()
        entrance.open("p1", "q*")
        await idle()
        entrance.publish(("p1", "0"))
        both, alone = entrance.enter("p1", "p*"), entrance.enter("p*")
        entrance.open("p*")
        await idle()
        entrance.publish(("p1", "1"), ("p2", "2"), ("p1", "3"))
        late = entrance.enter("p2")
        entrance.open("p2")
        await idle()
        entrance.publish(("p2", "4"))
        assert channel.texts == ["0", "1", "3"]
        assert both.texts == alone.texts == ["1", "2", "3", "4"], "each once"
        assert late.texts == ["4"]
        assert other.texts == []

    run(play)


@pytest.mark.parametrize("beside", [0, 30])
def test_an_id_stands_for_all_topics_a_message_was_heard_through(beside: int) -> None:
    """For few streams and for many it is found out in different ways which of them need ids of their own."""

    async def play() -> None:
        entrance = Entrance(max_patterns=1000)
        own = [f"own.{number}" for number in range(beside)]
        listening = entrance.enter("p1", "p*", "x")
        crowd = [entrance.enter("p1", "p*", name) for name in own]
        await idle()
        entrance.open("p1", "p*", "x", *own)
        await idle()
        published = [("p1", "1"), ("x", "2"), ("p2", "3"), ("p1", "4"), ("x", "5"), ("p1", "6")]
        for each in published:
            entrance.publish(each)
        ids = [frame.id for frame in listening.frames if frame.type == "message"]
        for place, id_ in enumerate(ids, 1):
            again = entrance.enter("p1", "p*", "x", last_event_id=id_)
            await idle()
            assert sorted(again.texts) == [text for _, text in published[place:]]
        for stream in crowd:
            again = entrance.enter(
                *[topic.name for topic in stream.subscriber.topics], last_event_id=stream.last_event_id
            )
            await idle()
            assert stream.texts == ["1", "3", "4", "6"]
            assert again.texts == []

    run(play)


@pytest.mark.parametrize("streams", [1, 30])
def test_streams_with_a_topic_that_is_not_counted_have_no_positions(streams: int) -> None:
    async def play() -> None:
        entrance = Entrance()
        counted = entrance.enter("a")
        await idle()
        entrance.open("a")
        mixed = [entrance.enter("a", "b") for _ in range(streams)]
        entrance.confirm("b")
        entrance.admission.opened(entrance.listening.open_uncounted())
        await idle()
        entrance.publish(("a", "1"), ("b", "2"))
        for stream in mixed:
            assert [frame.id for frame in stream.frames if frame.type == "message"] == ["2.0.0", "2.0.0"]
        assert counted.last_event_id != "2.0.0"

    run(play)


@pytest.mark.parametrize(("history", "published", "gap"), [(0, 5, False), (0, 6, True), (2, 7, False), (2, 8, True)])
def test_what_comes_while_a_stream_catches_up_is_held_within_the_limits_of_a_queue(
    history: int, published: int, gap: bool
) -> None:
    async def play() -> None:
        entrance = Entrance(history_events=history, queue_events=5)
        holder = entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        start = holder.last_event_id
        for number in range(4):
            entrance.publish(("a", f"missed {number}"))
        stream = entrance.enter("a", last_event_id=start)
        await idle()
        ring = entrance.topic("a").ring
        [(_, hole, future)] = entrance.asked.finding
        kept = [f"missed {number}" for number in range(4)][4 - history :] if history else []
        live = [f"live {number}" for number in range(published - history)]
        for text in live:
            entrance.publish(("a", text))
        assert len(ring) == min(published, history + 5)
        future.set_result([])
        entrance.asked.finding.clear()
        await idle()
        if gap:
            assert not stream.begun, "what it has lost has to be asked for, too"
            [(_, second, future)] = entrance.asked.finding
            assert second.end > hole.end
            future.set_result([])
            await idle()
            expected = [*kept, *live][1:]
        else:
            expected = [*kept, *live]
        assert stream.texts == expected
        assert ring.pins == 0
        assert len(ring) == history, "nobody waits any more"

    run(play)


def test_what_was_held_back_is_not_for_those_who_come_later() -> None:
    """Their ids stand for it already."""

    async def play() -> None:
        entrance = Entrance()
        crowd = [entrance.enter("a", "b") for _ in range(300)]
        await idle()
        entrance.open("a", "b")
        await idle()
        start = crowd[0].last_event_id
        late = entrance.enter("a", "c")
        await idle()
        entrance.open("c")
        entrance.publish(("a", "1"))
        entrance.publish(("a", "2"))
        now, back = entrance.enter("a", "b"), entrance.enter("a", "b", last_event_id=start)
        await idle()
        assert back.texts == ["1", "2"]
        for stream in (late, now):
            assert stream.texts == []
            again = entrance.enter("a", last_event_id=stream.last_event_id)
            await idle()
            assert again.texts == []
        entrance.publish(("a", "3"))
        entrance.publish(("a", "4"))
        back = entrance.enter("a", "b", last_event_id=start)
        await idle()
        assert back.texts == ["1", "2", "3", "4"]
        assert all(stream.texts == ["1", "2", "3", "4"] for stream in crowd)

    run(play)


@pytest.mark.parametrize("topics", [("a",), ("a", "b")])
def test_who_is_ended_has_had_what_its_last_id_stands_for(topics: tuple[str, ...]) -> None:
    async def play() -> None:
        entrance = Entrance()
        crowd = [entrance.enter(*topics) for _ in range(300)]
        await idle()
        entrance.open(*topics)
        await idle()
        entrance.publish(("a", "1"))
        entrance.publish(("a", "2"))
        ended = [stream for stream in crowd if stream.texts == []][:2]
        assert len(ended) == 2, "the fan-out is under way"
        for stream in ended:
            entrance.admission.close(stream.subscriber, "max_age", "max_age")
            assert stream.texts == ["1", "2", "gateway.closing"]
            again = entrance.enter(*topics, last_event_id=stream.last_event_id)
            await idle()
            assert again.texts == []

    run(play)


@pytest.mark.parametrize("topics", [("a",), ("a", "b")])
def test_who_is_told_something_has_had_what_its_id_stands_for(topics: tuple[str, ...]) -> None:
    async def play() -> None:
        entrance = Entrance()
        crowd = [entrance.enter(*topics) for _ in range(300)]
        await idle()
        entrance.open(*topics)
        await idle()
        entrance.publish(("a", "1"))
        entrance.publish(("a", "2"))
        behind = next(stream for stream in crowd if stream.texts == [])
        assert entrance.admission.tell(behind.subscriber, expiring(7))
        assert behind.texts == ["1", "2", "gateway.expiring"]
        again = entrance.enter(*topics, last_event_id=behind.last_event_id)
        entrance.publish(("a", "3"))
        await idle()
        assert (behind.texts[3:], again.texts) == (["3"], ["3"])

    run(play)


def test_nobody_is_told_anything_before_the_stream_has_begun() -> None:
    """It would come with an id that stands for what is still to be sent."""

    async def play() -> None:
        entrance = Entrance()
        first = entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "1"))
        at = first.last_event_id
        entrance.publish(("a", "2"))
        entrance.lose()
        waits = entrance.enter("a", last_event_id=at)
        await idle()
        assert not entrance.admission.tell(waits.subscriber, expiring(7))
        assert entrance.admission.tell(first.subscriber, expiring(7)), "this one has begun, and goes on"
        assert first.texts == ["1", "2", "gateway.expiring"]
        entrance.open("a")
        for _ in range(5):
            await idle()
            entrance.others_answer()
        assert waits.texts == ["2"]
        assert entrance.admission.tell(waits.subscriber, expiring(7))
        waits.leave()
        await idle()
        assert not entrance.admission.tell(waits.subscriber, expiring(7))

    run(play)


def test_who_comes_back_a_moment_later_gets_what_came_in_this_moment() -> None:
    """What streams begin with is made once for those that begin alike."""

    async def play() -> None:
        entrance = Entrance()
        holder = entrance.enter("a", "b")
        await idle()
        entrance.open("a", "b")
        await idle()
        start = holder.last_event_id
        for number in range(3):
            entrance.publish(("a", str(number)))
            for last_event_id, expected in ((start, [str(each) for each in range(number + 1)]), (None, [])):
                for names in (("a", "b"), ("a",)):
                    stream = entrance.enter(*names, last_event_id=last_event_id)
                    await idle()
                    again = entrance.enter(*names, last_event_id=stream.last_event_id)
                    await idle()
                    assert (stream.texts, again.texts) == (expected, [])

    run(play)


def test_others_that_fail_to_answer_are_asked_a_few_times_and_then_redis_alone() -> None:
    async def play() -> None:
        entrance = Entrance(history_events=1)
        holder = entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        start = holder.last_event_id
        for number in range(3):
            entrance.publish(("a", str(number)))
        stream = entrance.enter("a", last_event_id=start)
        asked = 0
        await idle()
        while not entrance.asked.of_redis_alone:
            [(_, _, future)] = entrance.asked.finding
            entrance.asked.finding.clear()
            future.set_exception(Interrupted())
            asked += 1
            assert asked <= 10
            await idle()
        assert asked > 1
        [(_, hole, future)] = entrance.asked.finding
        future.set_result([hole._replace(kind="not_kept")])
        await idle()
        assert stream.texts == ["gateway.gap", "2"]
        assert entrance.metrics.gaps == {"not_kept": 1}

    run(play)


def test_while_redis_refuses_to_count_nobody_waits_for_it_to() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        stream = entrance.enter("a", last_event_id="2.1.ff")
        await idle()
        [verifying] = entrance.asked.verifying
        verifying.set_exception(NotCounted("no memory"))
        await idle()
        entrance.publish(("a", "1"))
        assert stream.texts == ["gateway.gap", "1"]

    run(play)


# -- a connection that is lost


async def _until_some_are_in(streams: Sequence[Stream]) -> int:
    for _ in range(1000):
        await asyncio.sleep(0)
        if joined := sum(stream.subscriber.left_at is None for stream in streams):
            break
    assert 0 < joined < len(streams), "they are let in in portions"
    return joined


def test_streams_go_on_as_their_topics_open_one_after_the_other() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a"), entrance.enter("b"), entrance.enter("a", "b"), entrance.enter("b", "a")]
        await idle()
        entrance.open("a", "b")
        await idle()
        entrance.publish(("a", "0"), ("b", "1"))
        entrance.lose()
        assert all(stream.subscriber.left_at for stream in streams)
        entrance.open("a")
        entrance.others_answer()
        await idle()
        entrance.others_answer()
        await idle()
        assert [stream.subscriber.left_at is None for stream in streams] == [True, False, False, False]
        entrance.publish(("a", "2"))
        entrance.open("b")
        for _ in range(3):
            await idle()
            entrance.others_answer()
        entrance.publish(("b", "3"))
        assert [stream.texts for stream in streams] == [["0", "2"], ["1", "3"], *[["0", "1", "2", "3"]] * 2]
        assert all(topic.ring.pins == 0 for topic in entrance.topics)

    run(play)


def test_what_opens_while_others_are_let_in_is_not_forgotten() -> None:
    async def play() -> None:
        entrance = Entrance()
        late = entrance.enter("b")
        await idle()
        entrance.open("b")
        await idle()
        entrance.lose()  # so that this one is the first in the line
        streams = [entrance.enter("a") for _ in range(250)]
        await idle()
        entrance.open("a")
        await idle()
        entrance.lose()
        entrance.open("a")
        await idle()
        entrance.others_answer()
        await _until_some_are_in(streams)
        entrance.open("b")
        for _ in range(3):
            await idle()
            entrance.others_answer()
        entrance.publish(("b", "heard"))
        assert late.texts == ["heard"]

    run(play)


def test_a_fault_while_streams_are_let_in_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a") for _ in range(3)]
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "0"))
        entrance.lose()
        entrance.confirm("a")
        with monkeypatch.context() as broken:
            broken.setattr(entrance.listening, "id_of", lambda *_: 1 / 0)
            entrance.tick()
            await idle()
        assert "could not go on" in caplog.text
        assert all(stream.subscriber.left_at for stream in streams)
        entrance.pass_time(1)
        await idle()
        entrance.others_answer()
        await idle()
        entrance.publish(("a", "1"))
        assert [stream.texts for stream in streams] == [["0", "1"]] * 3

    run(play)


def test_what_is_sent_again_is_counted_for_each_stream_that_gets_it() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a", "b") for _ in range(3)]
        await idle()
        entrance.open("a", "b")
        await idle()
        entrance.publish(("a", "0"))
        entrance.lose()
        streams[0].leave()
        entrance.open("a", "b")
        await idle()
        entrance.publish(("a", "1"), ("a", "2"))
        for topic, hole, future in entrance.asked.finding:
            future.set_result([hole._replace(kind="not_kept")] if topic.name == "b" else [])
        entrance.asked.finding.clear()
        await idle()
        entrance.others_answer()
        await idle()
        assert [stream.texts for stream in streams[1:]] == [["0", "gateway.gap", "1", "2"]] * 2
        assert entrance.metrics.replayed == 2 * 2
        assert dict(entrance.metrics.gaps) == {"not_kept": 2}
        left_at = streams[1].last_event_id
        entrance.publish(("a", "3"))
        back = entrance.enter("a", "b", last_event_id=left_at)
        await idle()
        assert back.texts == ["3"]
        assert entrance.metrics.replayed == 2 * 2 + 1

    run(play)


def test_a_second_loss_while_others_are_asked_about_the_first() -> None:
    async def play() -> None:
        entrance = Entrance()
        stream, waiting = entrance.enter("a"), entrance.enter("never")
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "0"))
        left_at = stream.last_event_id
        entrance.lose()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "1"))
        [(topic, first, answer)] = entrance.asked.finding
        assert stream.subscriber.left_at == left_at
        entrance.lose()
        entrance.lose()  # before the topic is open again, which is no other hole
        entrance.open("a")
        await idle()
        entrance.tick()
        await idle()
        assert answer.cancelled(), "what was asked about the former connection"
        assert topic.ring.pins == 1
        assert stream.subscriber.left_at == left_at, "it has had nothing since"
        holes = {(hole.position, hole.end) for _, hole, future in entrance.asked.finding[1:] if not future.done()}
        assert (first.position, first.end) in holes
        assert len(holes) == len(entrance.asked.finding) - 1 == 2, "each is asked about once"
        entrance.others_answer()
        await idle()
        entrance.publish(("a", "2"))
        assert stream.texts == ["0", "1", "2"]
        assert [frame.type for frame in stream.frames].count("gateway.open") == 2, "it was told once that it goes on"
        assert not waiting.begun
        entrance.open("never")
        await idle()
        entrance.publish(("never", "1"))
        assert waiting.texts == ["1"]
        assert [frame.type for frame in waiting.frames] == ["gateway.open", "message"]
        assert topic.ring.pins == 0

    run(play)


def test_a_second_loss_while_streams_are_let_in_again() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a") for _ in range(250)]
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "0"))
        entrance.lose()
        assert [stream.texts for stream in streams] == [["0"]] * 250, "what its id stands for, a stream has had"
        entrance.open("a")
        await idle()
        entrance.others_answer()
        joined = await _until_some_are_in(streams)
        entrance.publish(("a", "1"))
        entrance.lose()
        assert [stream.texts[1:] for stream in streams].count(["1"]) == joined
        entrance.open("a")
        for _ in range(5):
            await idle()
            entrance.others_answer()
        entrance.publish(("a", "2"))
        await idle()
        assert [stream.texts for stream in streams] == [["0", "1", "2"]] * 250
        assert entrance.topic("a").ring.pins == 0

    run(play)


def test_a_stream_that_ends_while_the_connection_is_lost_ends_where_it_was() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a"), entrance.enter("a")]
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "0"))
        left_at = streams[0].last_event_id
        entrance.lose()
        for stream in streams:
            entrance.admission.close(stream.subscriber, "drain", "worker_shutdown")
            entrance.open("a")
            entrance.publish(("a", "not theirs"))
            assert stream.texts == ["0", "gateway.closing"]
            assert stream.last_event_id == left_at
            assert stream.socket.ended == "cleanly"
        await idle()
        entrance.publish(("a", "1"))
        assert [stream.texts for stream in streams] == [["0", "gateway.closing"]] * 2
        entrance.others_answer()
        await idle()
        assert entrance.metrics.replayed == 0

    run(play)


def test_a_slow_stream_that_goes_on_has_the_limits_of_its_queue() -> None:
    async def play() -> None:
        entrance = Entrance(queue_events=3, overflow="drop-oldest")
        for missed, ended in ((1, ""), (2, "cut")):
            stream = entrance.enter("a")
            entrance.open("a")
            await idle()
            stream.socket.full = True
            stream.subscriber.send = stream.socket.send
            entrance.publish(("a", "0"), ("a", "1"))
            entrance.lose()
            entrance.open("a")
            await idle()
            for number in range(missed):
                entrance.publish(("a", str(2 + number)))
            entrance.others_answer()
            await idle()
            assert stream.socket.ended == ended, "a part of a replay can't be dropped"
            if not ended:
                stream.socket.drain()
                assert stream.texts == ["0", "1", "2"]
            stream.leave()

    run(play)


@pytest.mark.parametrize(
    ("kept", "missed", "step"), [(2, 5, 1), (5000, 1050, 3)], ids=["asked of others", "a long replay"]
)
def test_a_connection_lost_twice_while_a_stream_catches_up_costs_nothing(kept: int, missed: int, step: int) -> None:
    async def play(at: int) -> bool:
        """Whether the stream had begun before."""
        entrance = Entrance(history_events=kept, queue_events=5000)
        holder = entrance.enter("a", "p*")
        await idle()
        entrance.open("a", "p*")
        await idle()
        start = holder.last_event_id
        expected: list[str] = []

        def publish(count: int) -> None:
            for _ in range(count):
                expected.append(str(len(expected)))
                entrance.publish(("a", expected[-1]))

        publish(missed)
        stream = entrance.enter("a", "p*", last_event_id=start)
        begun = False
        for turn in range(at + 200):
            if turn in (at, at + 7):
                begun = begun or stream.begun
                entrance.lose()
                entrance.confirm("p*")
            elif turn in (at + 3, at + 10):
                entrance.open("a")
                publish(missed)
            if not turn % 3:
                entrance.others_answer()
            await asyncio.sleep(0)
        publish(1)
        assert stream.texts == holder.texts == expected, f"lost at {at}"
        assert all(topic.ring.pins == 0 for topic in entrance.topics)
        return begun

    at = 0
    while not run(partial(play, at)):
        at += step
    assert at > 6


def test_connections_lost_again_and_again_while_a_stream_catches_up_cost_nothing() -> None:
    async def play() -> None:
        entrance = Entrance()
        holder = entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "0"))
        start = holder.last_event_id
        entrance.lose()
        entrance.open("a")
        entrance.publish(("a", "1"))
        stream = entrance.enter("a", last_event_id=start)
        await idle()
        for number in range(2, 12):
            for _, _, future in entrance.asked.finding:
                if not future.done():
                    future.set_exception(Interrupted())
            entrance.lose()
            entrance.open("a")
            entrance.publish(("a", str(number)))
            await idle()
        assert not stream.begun
        for _ in range(3):
            entrance.others_answer()
            await idle()
        assert stream.texts == [str(number) for number in range(1, 12)]
        assert holder.texts == [str(number) for number in range(12)]

    run(play)


def test_who_has_waited_for_a_long_replay_has_time_for_the_next() -> None:
    async def play() -> None:
        entrance = Entrance(history_events=5000, queue_events=5000, subscribe_timeout=5)
        holder = entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        start = holder.last_event_id
        for number in range(1050):
            entrance.publish(("a", str(number)))
        stream = entrance.enter("a", last_event_id=start)
        for _ in range(5):
            await asyncio.sleep(0)
        entrance.pass_time(6)
        for number in range(1050, 2100):
            entrance.publish(("a", str(number)))
        assert not stream.begun
        await idle()
        assert stream.refusal is None
        assert stream.texts == [str(number) for number in range(2100)]

    run(play)


@pytest.mark.parametrize("proof", [True, False])
def test_many_who_are_far_behind_leave_the_loop_to_others(proof: bool) -> None:
    """To find out what one has missed takes milliseconds; for hundreds that was done in one turn of the loop."""

    async def play() -> None:
        entrance = Entrance(history_events=5000, queue_events=5000)
        holder = entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        for number in range(1100):
            entrance.publish(("a", str(number)))
        ids = [frame.id for frame in holder.frames if frame.type == "message"]
        planned = 0
        plan = entrance.admission._inquiry.plan

        def count(state: CatchUp) -> Any:
            nonlocal planned
            planned += 1
            return plan(state)

        entrance.admission._inquiry.plan = count  # type: ignore[method-assign]
        streams = [
            entrance.enter("a", last_event_id=ids[number], proof=f"{number:022}" if proof else "")
            for number in range(50)
        ]
        most = 0
        while not all(stream.begun for stream in streams):
            before = planned
            await asyncio.sleep(0)
            most = max(most, planned - before)
        assert most <= 2, "one that is far behind, and what follows a long replay"
        assert [len(stream.texts) for stream in streams] == [1099 - number for number in range(50)]

    run(play)


def test_a_connection_lost_while_history_is_read() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.enter("a")
        await idle()
        entrance.open("a")
        await idle()
        stream = Stream(entrance, ["a"], Wish(None, 5))
        await idle()
        topic = entrance.topic("a")
        kept = [Entry(Position(1, 1, number), "a", Event(b"%d" % number)) for number in range(1, 4)]
        [(_, first)] = entrance.asked.reading
        entrance.lose()
        first.set_result(Newest({topic: kept[:1]}, {}))
        await idle()
        assert not stream.begun
        assert len(entrance.asked.reading) == 1, "nobody knows yet up to where to read"
        entrance.open("a")
        await idle()
        [_, (_, second)] = entrance.asked.reading
        second.set_result(Newest({topic: kept}, {}))
        await idle()
        assert stream.texts == ["1", "2", "3"], "what was read on the former connection may be another history's"
        entrance.others_answer()
        await idle()
        assert topic.ring.pins == 0

    run(play)


def test_streams_that_cannot_go_on_are_told_to_come_back_to_where_they_were() -> None:
    async def play() -> None:
        entrance = Entrance(replays_at_once=1, replays_waiting=0, history_events=5000, queue_events=5000)
        streams = [entrance.enter("a") for _ in range(3)]
        await idle()
        entrance.open("a")
        await idle()
        entrance.publish(("a", "0"))
        left_at = streams[0].last_event_id
        reading = Stream(entrance, ["a"], Wish(None, 5))
        await idle()
        assert entrance.admission.long.gate.inside == 1
        entrance.lose()
        streams[0].leave()
        entrance.open("a")
        await idle()
        for number in range(1050):
            entrance.publish(("a", str(number)))
        entrance.others_answer()
        await idle()
        for stream in streams[1:]:
            assert stream.texts == ["0", "gateway.closing"]
            assert stream.frames[-1].data == '{"reason":"busy"}'
            assert stream.last_event_id == left_at
            assert stream.socket.ended == "cleanly"
        assert entrance.metrics.streams_closed == {"client": 1, "busy": 2}
        reading.leave()
        await idle()
        assert entrance.admission.long.gate.inside == 0, "nobody wants it any more"
        assert entrance.topic("a").ring.pins == 0

    run(play)
