"""What `gateway bench` makes of the gateway's own events, and of ids that are each stream's own."""

from collections import defaultdict
from collections.abc import Sequence

import pytest

from gateway.bench import payload
from gateway.bench.decoder import State
from gateway.bench.load import OWN_FIRST, Load
from gateway.bench.reception import Reception

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
STAMP = 1_000_000
SHARED_ID = b"id: 2.9xk2m1c0q3.1f.Ab3_9xQz:12\n"
OWN_ID = b"id: 2.9xk2m1c0q3.1f.Ab3_9xQz:12.Zz8-Kq1a:3~1\n"
PING = b":\n"
OPEN = b'event: gateway.open\nretry: 2000\nid: 2.9xk2m1c0q3.1f\ndata: {"channels":["user.7","news"]}\n\n'
GAP = b'event: gateway.gap\ndata: {"channel":"news","reason":"not_kept","since":1790000000}\n\n'


def message(number: int) -> bytes:
    return payload.encode(number, STAMP, 80)


def frame(number: int, own_id: bool = False) -> bytes:
    return (b"" if own_id else SHARED_ID) + b"data: " + message(number) + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def received(pieces: Sequence[bytes], own: bool = False) -> Reception:
    reception = Reception(defaultdict(int), own=own)
    for piece in pieces:
        reception.feed(piece, STAMP)
    return reception


def cuts(data: bytes) -> list[list[bytes]]:
    """The data cut in two at every place, and into single bytes."""
    halves = [[data[:place], data[place:]] for place in range(len(data) + 1)]
    return [*halves, [data[place : place + 1] for place in range(len(data))]]


def framings(events: Sequence[bytes]) -> list[bytes]:
    """A chunk for each event, one for all, small ones, and none."""
    body = b"".join(events)
    return [
        HEAD + b"".join(map(chunk, events)),
        HEAD + chunk(body),
        HEAD + b"".join(chunk(body[start : start + 5]) for start in range(0, len(body), 5)),
        HEAD.replace(b"Transfer-Encoding: chunked", b"Connection: close") + body,
    ]


# The gateway's own events


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_own_events_and_pings_are_no_deliveries(line_end: bytes) -> None:
    events = [OPEN, PING, frame(0), PING, GAP, frame(2), PING]
    for data in framings([event.replace(b"\n", line_end) for event in events]):
        for pieces in cuts(data):
            reception = received(pieces)
            assert (reception.ledger.received, reception.ledger.lost(3), reception.gaps) == (2, 1, 1), pieces[0][-20:]
            assert not reception.ledger.duplicates


@pytest.mark.parametrize("name", [b"gateway.open", b"gateway.gap", b"gateway.closing", b"gateway.ended"])
def test_a_payload_in_an_own_event_is_no_delivery(name: bytes) -> None:
    events = [OPEN, frame(0), b"event: %s\ndata: %s\n\n" % (name, message(1)), frame(1)]
    for data in framings(events):
        for pieces in cuts(data):
            reception = received(pieces)
            assert (reception.ledger.received, reception.ledger.duplicates) == (2, 0), pieces[0][-20:]
            assert sum(reception.latencies.values()) == 2


def test_other_types_are_deliveries() -> None:
    events = [OPEN, b"event: gateway\ndata: %s\n\n" % message(0), b"event: my.gateway.gap\ndata: %s\n\n" % message(1)]
    for data in framings(events):
        for pieces in cuts(data):
            reception = received(pieces)
            assert (reception.ledger.received, reception.gaps) == (2, 0)


def test_a_stream_that_is_turned_away_has_ended() -> None:
    closing = b'event: gateway.closing\nretry: 3120\ndata: {"reason":"full"}\n\n'
    state = received([HEAD + chunk(closing) + b"0\r\n\r\n"]).state
    assert state.ended


# Ids that are each stream's own


def state_after(*pieces: bytes) -> State:
    return received(pieces).state


def test_an_id_in_a_chunk_of_its_own_belongs_to_the_frame_behind_it() -> None:
    data = HEAD + chunk(OPEN) + b"".join(chunk(OWN_ID) + chunk(frame(number, own_id=True)) for number in range(3))
    for pieces in cuts(data):
        assert received(pieces).ledger.received == 3, pieces[0][-20:]


def test_ids_of_their_own_leave_what_streams_share_alone() -> None:
    """Otherwise each stream's bytes would be decoded in full, and push out what the others look up."""
    between = state_after(HEAD + chunk(OPEN))
    shared = chunk(frame(0, own_id=True))
    between.memo.clear()
    for number in range(2_000):
        own = chunk(b"id: 2.9xk2m1c0q3.%x\n" % number)
        piece = between.step(own + shared)
        assert piece.after is between
        assert piece.numbers == (0,)
        assert between.step(own).after is between
        assert between.step(shared + own + chunk(frame(1, own_id=True))).numbers == (0, 1)
    assert len(between.memo) == 2


def test_an_id_chunk_that_says_another_size_is_not_taken_out() -> None:
    between = state_after(HEAD + chunk(OPEN))
    # The size spans the next chunk's size line: what looks like a chunk of its own is a part of a larger one.
    inner = OWN_ID + b"\r\n" + chunk(frame(0, own_id=True))
    assert between.step(b"%x\r\n%s\r\n" % (len(inner), inner)).numbers == (0,)


# A channel of its own beside a shared one


def test_both_channels_are_checked_each_by_itself() -> None:
    events = [frame(0), frame(OWN_FIRST), frame(1), frame(OWN_FIRST + 2), frame(1), frame(3)]
    reception = received([HEAD + chunk(OPEN), *map(chunk, events)], own=True)
    assert reception.own is not None
    shared, own = reception.ledger, reception.own
    assert (shared.received, shared.lost(4), shared.duplicates, shared.reordered) == (3, 1, 1, 0)
    assert (own.received, own.lost(OWN_FIRST + 3), own.duplicates) == (2, 1, 0)
    joined = received([HEAD + chunk(OPEN), b"".join(map(chunk, events))], own=True)
    assert joined.own is not None
    assert (joined.ledger.received, joined.ledger.duplicates, joined.own.received) == (3, 1, 2)


def test_one_own_channel_in_so_many_gets_messages() -> None:
    load = Load(25, 10, 2, own_every=10, own_rate=3)
    assert (load.messages, load.own_channels, load.own_messages) == (20, 3, 18)
    assert (Load(25, 10, 2).own_channels, Load(25, 10, 2).own_messages) == (0, 0)
