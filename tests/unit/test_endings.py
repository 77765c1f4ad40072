"""Streams all of whose channels are over."""

import asyncio

import pytest

from gateway.fanout.encodings import Encodings
from gateway.fanout.turned_away import Over, TurnedAway
from gateway.memory.catch_up import Wish
from tests.unit.entrance import Entrance, Stream, idle, run


async def _open(entrance: Entrance, *names: str) -> Stream:
    stream = entrance.enter(*names)
    await idle()
    entrance.open(*names)
    await idle()
    return stream


def test_whether_a_channel_is_over_is_asked_once_and_together() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [entrance.enter("a", "b"), entrance.enter("b", "c*"), entrance.enter("d")]
        await idle()
        entrance.open("a", "b", "c*", "d")
        await idle()
        assert all(stream.begun for stream in streams)
        assert [sorted(names) for names in entrance.asked.about_ends] == [["a", "b", "d"]], "no pattern is over"
        again = entrance.enter("a", "d")
        assert len(entrance.asked.about_ends) == 1
        await idle()
        assert again.begun

    run(play)


def test_streams_end_once_the_last_of_their_channels_is_over() -> None:
    async def play() -> None:
        entrance = Entrance()
        one, both = await _open(entrance, "a"), await _open(entrance, "a", "b")
        wild = await _open(entrance, "a", "x*")
        entrance.publish(("a", "1"))
        entrance.end("a")
        await idle()
        assert (one.texts, one.socket.ended) == (["1", "gateway.ended"], "cleanly")
        for stream in (both, wild):
            assert (stream.texts, stream.socket.ended) == (["1", "gateway.ended"], "")
        entrance.end("b")
        await idle()
        assert (both.texts[2:], both.socket.ended) == (["gateway.ended"], "cleanly")
        assert wild.socket.ended == ""
        assert entrance.metrics.streams_closed == {"ended": 2}

    run(play)


def test_whoever_comes_to_what_is_over() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.asked.ended = {"a", "b"}
        holder = await _open(entrance, "a", "c")
        assert holder.texts == ["gateway.ended"], "it is told at the beginning"
        for wish in (Wish(), Wish(holder.last_event_id)):
            stream = Stream(entrance, ["a"], wish)
            await idle()
            assert (stream.refusal, stream.begun) == (None, False), "it may have been published to, and not heard yet"
            entrance.asked.verifying.pop().set_result(None)
            await idle()
            assert isinstance(stream.refusal, Over)
        assert entrance.metrics.streams_closed == {"ended": 2}
        told = Stream(entrance, ["a"], Wish(told_of_end=True))
        back = Stream(entrance, ["a"], Wish(holder.last_event_id, told_of_end=True))
        await idle()
        for stream in (told, back):
            assert [frame.type for frame in stream.frames] == ["gateway.open", "gateway.ended"]
            assert stream.socket.ended == "cleanly"
        again = entrance.enter("a", "c", last_event_id=holder.last_event_id)
        await idle()
        assert (again.texts, again.begun) == ([], True), "it knows already"

    run(play)


@pytest.mark.parametrize("returns", [True, False])
def test_what_was_published_just_before_is_heard_first(returns: bool) -> None:
    """Nobody comes back who was told that it is over."""

    async def play() -> None:
        entrance = Entrance()
        holder = await _open(entrance, "a", "b")
        entrance.end("a")
        stream = entrance.enter("a", last_event_id=holder.last_event_id if returns else None)
        await idle()
        entrance.topic("a").over = False
        entrance.publish(("a", "again"))
        entrance.asked.verifying.pop().set_result(None)
        await idle()
        entrance.publish(("a", "and again"))
        assert stream.texts == (["again", "and again"] if returns else ["and again"])

    run(play)


def test_nobody_waits_for_a_tick_forever() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.asked.ended = {"a"}
        holder = await _open(entrance, "a", "b")
        streams = [entrance.enter("a"), entrance.enter("a", last_event_id=holder.last_event_id)]
        await idle()
        entrance.pass_time(entrance.settings.subscribe_timeout)
        await idle()
        for stream in streams:
            assert isinstance(stream.refusal, TurnedAway)
        assert len(entrance.members) == 1

    run(play)


def test_an_end_that_is_none_for_the_client_is_torn() -> None:
    async def play() -> None:
        entrance = Entrance()
        for torn, ended in ((True, "torn"), (False, "cleanly")):
            entrance.encoding = Encodings(0).get(chunked=True, named=False, torn=torn)
            over, old, shut = [await _open(entrance, "a") for _ in range(3)]
            entrance.admission.close(old.subscriber, "max_age", "max_age")
            entrance.members.end(shut.subscriber, "shutdown")
            entrance.end("a")
            await idle()
            assert (old.socket.ended, shut.socket.ended, over.socket.ended) == (ended, ended, "cleanly")
            for stream, clean in ((old, not torn), (shut, not torn), (over, True)):
                assert stream.socket.written.endswith(b"\r\n0\r\n\r\n") is clean
            entrance.topic("a").over = False

    run(play)


def test_a_slow_client_gets_everything_before_the_end() -> None:
    async def play() -> None:
        entrance = Entrance()
        stream = await _open(entrance, "a")
        stream.socket.full = True
        for number in range(5):
            entrance.publish(("a", str(number)))
        entrance.end("a")
        await idle()
        assert stream.subscriber.closed == "ended"
        assert stream.texts == ["0", "1", "2", "3", "4", "gateway.ended"]

    run(play)


@pytest.mark.parametrize("last_event_id", ["junk", "2.0.0"])
def test_whoever_comes_with_an_id_that_says_nothing_is_told(last_event_id: str) -> None:
    async def play() -> None:
        entrance = Entrance()
        await _open(entrance, "a", "b")
        entrance.end("a")
        stream = entrance.enter("a", last_event_id=last_event_id)
        for _ in range(4):
            await idle()
            for verifying in entrance.asked.verifying:
                if not verifying.done():
                    verifying.set_result(None)
            entrance.others_answer()
        assert stream.texts == ["gateway.gap", "gateway.ended"]
        assert stream.socket.ended == "cleanly"

    run(play)


def test_no_policy_drops_the_end_or_anything_for_it() -> None:
    async def play() -> None:
        entrance = Entrance(overflow="latest")
        one, both = await _open(entrance, "a"), await _open(entrance, "a", "b")
        for stream in (one, both):
            stream.socket.full = True
        for number in range(5):
            entrance.publish(("a", str(number)))
        entrance.end("a")
        await idle()
        for stream in (one, both):
            stream.socket.full = False
            stream.socket.drain()
            assert stream.texts[-2:] == ["4", "gateway.ended"]

    run(play)


def test_whoever_missed_much_is_told_of_the_end_once() -> None:
    async def play() -> None:
        entrance = Entrance(history_events=5000, queue_events=5000)
        start = (await _open(entrance, "a", "b")).last_event_id
        for number in range(1050):  # more than is encoded in one go
            entrance.publish(("a", str(number)))
        entrance.end("a", "b")
        back = entrance.enter("a", "b", last_event_id=start)
        while not back.socket.ended:
            await idle()
        assert back.texts == [*map(str, range(1050)), "gateway.ended", "gateway.ended"]
        assert back.socket.ended == "cleanly"

    run(play)


def test_many_streams_end_in_portions() -> None:
    async def play() -> None:
        entrance = Entrance()
        streams = [await _open(entrance, "a"), *[entrance.enter("a") for _ in range(249)]]
        await idle()
        entrance.end("a")
        most = before = 0
        while any(not stream.socket.ended for stream in streams):
            await asyncio.sleep(0)
            ended = sum(bool(stream.socket.ended) for stream in streams)
            most, before = max(most, ended - before), ended
        assert most == 100
        assert {tuple(stream.texts) for stream in streams} == {("gateway.ended",)}

    run(play)


def test_what_is_heard_counts_more_than_an_older_answer() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.asked.ended = {"a"}
        stream = entrance.enter("a")
        await idle()
        entrance.open("a")
        await asyncio.sleep(0)
        entrance.topic("a").over = False  # it was published to while Redis was asked
        await idle()
        assert stream.begun

    run(play)


def test_a_channel_that_is_published_to_at_the_last_moment_stays() -> None:
    async def play() -> None:
        entrance = Entrance()
        stream = await _open(entrance, "a")
        entrance.end("a")
        entrance.topic("a").over = False
        await idle()
        entrance.publish(("a", "again"))
        assert (stream.texts, stream.socket.ended) == (["gateway.ended", "again"], "")

    run(play)


def test_on_another_connection_it_is_asked_again() -> None:
    async def play() -> None:
        entrance = Entrance()
        one, both = await _open(entrance, "a"), await _open(entrance, "a", "b")
        asked = len(entrance.asked.about_ends)
        entrance.lose()
        entrance.asked.ended = {"a"}
        entrance.open("a", "b")
        await idle()
        entrance.others_answer()
        await idle()
        assert len(entrance.asked.about_ends) > asked
        assert (one.socket.ended, both.socket.ended) == ("cleanly", "")
        assert entrance.topic("b").over is False

    run(play)


@pytest.mark.parametrize("back", [True, False])
def test_streams_that_go_on_while_redis_cannot_be_asked(back: bool) -> None:
    """They wait a little, and then have to come back: they could be over, and nobody would tell them."""

    async def play() -> None:
        entrance = Entrance()
        streams = [await _open(entrance, "a"), await _open(entrance, "a", "b")]
        entrance.lose()
        entrance.asked.is_away = True
        entrance.open("a", "b")
        await idle()
        entrance.asked.is_away = not back
        entrance.pass_time(6)
        for _ in range(3):
            await idle()
            entrance.others_answer()
            entrance.pass_time(1)
        await idle()
        entrance.publish(("a", "1"))
        if back:
            assert [stream.texts for stream in streams] == [["1"], ["1"]]
        else:
            assert [stream.texts for stream in streams] == [["gateway.closing"], ["gateway.closing"]]
            assert len(entrance.members) == 0

    run(play)


def test_a_redis_that_cannot_be_asked() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.asked.is_away = True
        streams = [entrance.enter("a"), entrance.enter("a", last_event_id="2.1.2")]
        await idle()
        entrance.open("a")
        await idle()
        assert [stream.refusal for stream in streams] == [None, None], "it is asked again"
        asked = len(entrance.asked.about_ends)
        entrance.pass_time(1)
        await idle()
        assert len(entrance.asked.about_ends) > asked
        entrance.pass_time(entrance.settings.subscribe_timeout)
        await idle()
        for stream in streams:
            assert isinstance(stream.refusal, TurnedAway)
            assert stream.refusal.reason == "redis_away"
        assert len(entrance.members) == 0
        entrance.asked.is_away = False
        later = entrance.enter("a")
        await idle()
        assert later.begun

    run(play)


@pytest.mark.parametrize("history", [1, 2, 5])
def test_the_end_is_none_of_the_events_of_the_past(history: int) -> None:
    async def play() -> None:
        entrance = Entrance()
        await _open(entrance, "a", "b")
        for number in range(5):
            entrance.publish(("a", str(number)))
        entrance.end("a")
        stream = Stream(entrance, ["a"], Wish(history=history))
        await idle()
        expected = [str(number) for number in range(5)][-history:]
        assert stream.texts == [*expected, "gateway.ended"]
        assert stream.socket.ended == "cleanly"

    run(play)
