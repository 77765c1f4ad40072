"""How streams end, and what is left of them: nothing, also of those that nobody reads."""

from typing import Any

import pytest

from gateway.fanout.encodings import Encodings
from tests.unit.entrance import Entrance, Stream, idle, run

_LAST_WORDS = 30


async def _streams(entrance: Entrance, count: int) -> list[Stream]:
    streams = [entrance.enter("a") for _ in range(count)]
    await idle()
    entrance.open("a")
    await idle()
    return streams


def test_an_ended_stream_that_nobody_reads_is_cut_off_after_a_while() -> None:
    async def play() -> None:
        entrance = Entrance(stall_timeout=0)
        early, also_early, late, open_ = await _streams(entrance, 4)
        for stream in (early, also_early):
            entrance.admission.close(stream.subscriber, "max_age", "max_age")
        entrance.pass_time(1)
        entrance.admission.close(late.subscriber, "max_age", "max_age")
        entrance.pass_time(_LAST_WORDS - 1)
        entrance.members.sweep()
        assert [stream.socket.ended for stream in (early, also_early, late)] == ["cleanly"] * 3
        entrance.pass_time(0.5)
        entrance.members.sweep()
        assert [stream.socket.ended for stream in (early, also_early, late)] == ["cut", "cut", "cleanly"]
        entrance.pass_time(1)
        entrance.members.sweep()
        assert late.socket.ended == "cut"
        assert open_.socket.ended == ""

    run(play)


def test_the_last_piece_ends_with_the_end_of_the_stream() -> None:
    async def play() -> None:
        entrance = Entrance()
        [stream] = await _streams(entrance, 1)
        entrance.publish(("a", "1"))
        stream.socket.full = True
        entrance.publish(("a", "2"))
        entrance.members.end(stream.subscriber, "shutdown")
        assert stream.texts == ["1", "2"]
        entrance.publish(("a", "3"))
        assert stream.texts == ["1", "2"]
        assert entrance.metrics.streams_closed == {"shutdown": 1}

    run(play)


def test_a_stream_in_chunks_ends_with_the_last_chunk() -> None:
    async def play() -> None:
        entrance = Entrance()
        entrance.encoding = Encodings(0).get(chunked=True, named=False)
        closed, ended = await _streams(entrance, 2)
        entrance.admission.close(closed.subscriber, "drain", "worker_shutdown")
        entrance.members.end(ended.subscriber, "shutdown")
        for stream in (closed, ended):
            assert stream.socket.written.endswith(b"\r\n0\r\n\r\n")

    run(play)


def test_a_stream_that_ends_leaves_nothing_behind() -> None:
    async def play() -> None:
        entrance = Entrance(max_age=1000, linger=0)
        streams = await _streams(entrance, 6)
        for stream in streams:
            stream.socket.full = True
        entrance.publish(("a", "1"))
        assert entrance.members.behind == {stream.subscriber for stream in streams}
        ends: list[Any] = [
            lambda each: entrance.members.leave(each, "client"),
            lambda each: entrance.members.end(each, "shutdown"),
            lambda each: entrance.members.drop(each, "overflow"),
            lambda each: entrance.admission.close(each, "max_age", "max_age"),
        ]
        for end, stream in zip(ends, streams, strict=False):
            end(stream.subscriber)
            end(stream.subscriber)
        assert [stream.socket.ended for stream in streams] == ["", "cleanly", "cut", "cleanly", "", ""]
        left = streams[4:]
        assert entrance.members.behind == set(entrance.members.all()) == {stream.subscriber for stream in left}
        audience = entrance.members.audience(entrance.topic("a"))
        assert audience is not None
        assert audience.size == 2
        assert sum(entrance.metrics.streams_closed.values()) == 4
        entrance.pass_time(2000)
        assert {id(each) for each in entrance.members.sweep()} <= {id(each.subscriber) for each in left}
        for stream in left:
            stream.leave()
        assert entrance.members.audience(entrance.topic("a")) is None
        assert entrance.topics.is_idle(entrance.topic("a"))

    run(play)


@pytest.mark.parametrize("takes", [False, True])
def test_a_stream_that_takes_something_now_and_then_does_not_stand_still(takes: bool) -> None:
    async def play() -> None:
        entrance = Entrance(stall_timeout=10, queue_bytes=10_000_000)
        [stream] = await _streams(entrance, 1)
        stream.socket.full = True
        for number in range(100):
            entrance.publish(("a", f"{number}" + "x" * 50_000))
        for second in range(1, 25):
            entrance.pass_time(1)
            if takes and not second % 6:
                stream.subscriber.take()
            entrance.members.sweep()
            assert (stream.socket.ended == "cut") is (not takes and second > 10)
        if takes:
            for _ in range(12):
                entrance.pass_time(1)
                entrance.members.sweep()
            assert stream.socket.ended == "cut", "nothing was taken any more"

    run(play)


def test_whoever_is_as_old_as_may_be_is_ended_once() -> None:
    async def play() -> None:
        entrance = Entrance(max_age=100)
        streams = await _streams(entrance, 50)
        gone = streams.pop()
        gone.leave()
        ended = []
        for second in range(1, 130):
            if second == 105:
                continue  # a sweep that comes late
            entrance.now = second
            due = entrance.members.sweep()
            assert not due or 90 <= second <= 111
            ended += due
        assert len(ended) == len(set(ended)) == 49
        assert gone.subscriber not in ended

    run(play)
