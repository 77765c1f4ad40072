"""`gateway bench` counts what it reads: its figures are worth something only if it notices what is wrong."""

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.bench import payload
from gateway.bench.decoder import State
from gateway.bench.errors import ResponseError
from gateway.bench.latencies import SHIFT, Latencies
from gateway.bench.ledger import Ledger
from gateway.bench.load import share
from gateway.bench.reception import Reception
from gateway.fanout.encodings import SseEncoding

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
STAMP = 1_000_000
SIZE = 70


# What a stream's bytes say


def opened(retry: int) -> bytes:
    """What a stream of this gateway is live from."""
    return b'id: 2.6756bd0f.2a\nevent: gateway.open\nretry: %d\ndata: {"channels":["news"]}\n\n' % retry


OPENED = opened(2000)


def event(number: int) -> bytes:
    """An event with all that may surround a payload."""
    data = payload.encode(number, STAMP, SIZE)
    return b"id: 2.6756bd0f.2a.NRPzAs2x:1f\ndata: " + data + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def one_chunk_each(numbers: Sequence[int]) -> bytes:
    return HEAD + chunk(OPENED) + b"".join(chunk(event(number)) for number in numbers)


def all_in_one_chunk(numbers: Sequence[int]) -> bytes:
    return HEAD + chunk(OPENED + b"".join(map(event, numbers)))


def chunks_that_cut_events(numbers: Sequence[int]) -> bytes:
    """As a proxy may send it: chunks that end anywhere, even inside a number."""
    body = OPENED + b":\n" + b"".join(map(event, numbers))
    return HEAD + b"".join(chunk(body[start : start + 7]) for start in range(0, len(body), 7))


def no_chunks(numbers: Sequence[int]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return head + OPENED + b"".join(map(event, numbers))


def with_carriage_returns(numbers: Sequence[int]) -> bytes:
    """sse-starlette ends its lines like this."""
    body = b"".join(chunk(event(number).replace(b"\n", b"\r\n")) for number in numbers)
    return HEAD + chunk(b": connected\r\n\r\n") + body


GZIP_HEAD = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")


def gzip_chunks(parts: Sequence[bytes], head: bytes = GZIP_HEAD) -> bytes:
    """As the gateway compresses: each part by itself, small ones only stored."""
    encoding = SseEncoding(True, False, zlib.compressobj(wbits=-zlib.MAX_WBITS), 20)
    first, *rest = parts
    return head + encoding.header + encoding.wrap(first) + b"".join(map(encoding.wrap, rest))


def compressed(numbers: Sequence[int]) -> bytes:
    return gzip_chunks([OPENED, *map(event, numbers)])


def compressed_with_what_was_missed(numbers: Sequence[int]) -> bytes:
    """A resumed stream: its first piece holds events, and pings come between later ones."""
    parts = [part for number in numbers[2:] for part in (b":\n", event(number))]
    return gzip_chunks([b"".join(map(event, numbers[:2])) + OPENED, *parts])


def compressed_as_one(numbers: Sequence[int]) -> bytes:
    """As any other server may: without a flush until all is said."""
    deflate = zlib.compressobj(wbits=31)
    data = deflate.compress(OPENED + b"".join(map(event, numbers)))
    return GZIP_HEAD + chunk(data + deflate.flush(zlib.Z_SYNC_FLUSH))


FRAMINGS = [
    one_chunk_each,
    all_in_one_chunk,
    chunks_that_cut_events,
    no_chunks,
    with_carriage_returns,
    compressed,
    compressed_with_what_was_missed,
    compressed_as_one,
]


def received(pieces: Sequence[bytes]) -> Reception:
    reception = Reception(defaultdict(int))
    for piece in pieces:
        reception.feed(piece, STAMP)
    return reception


def findings(ledger: Ledger, published: int) -> dict[str, int]:
    return {
        "received": ledger.received,
        "lost": ledger.lost(published),
        "duplicates": ledger.duplicates,
        "reordered": ledger.reordered,
    }


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2, 3], {"received": 4, "lost": 0, "duplicates": 0, "reordered": 0}),
        ([0, 1, 3], {"received": 3, "lost": 1, "duplicates": 0, "reordered": 0}),
        ([1, 2, 3], {"received": 3, "lost": 1, "duplicates": 0, "reordered": 0}),
        ([0, 1, 2], {"received": 3, "lost": 1, "duplicates": 0, "reordered": 0}),
        ([0, 1, 1, 2, 3], {"received": 4, "lost": 0, "duplicates": 1, "reordered": 0}),
        ([0, 1, 2, 3, 0], {"received": 4, "lost": 0, "duplicates": 1, "reordered": 0}),
        ([0, 2, 1, 3], {"received": 4, "lost": 0, "duplicates": 0, "reordered": 1}),
        ([0, 3, 3, 1], {"received": 3, "lost": 1, "duplicates": 1, "reordered": 1}),
    ],
)
def test_every_fault_is_noticed_wherever_the_bytes_are_cut(
    framing: Any, numbers: list[int], expected: dict[str, int]
) -> None:
    data = framing(numbers)
    for cut in range(len(data) + 1):
        reception = received([data[:cut], data[cut:]])
        assert findings(reception.ledger, 4) == expected, f"cut after {data[:cut][-20:]!r}"
        assert sum(reception.latencies.values()) == len(numbers)
    byte_by_byte = received([data[place : place + 1] for place in range(len(data))])
    assert findings(byte_by_byte.ledger, 4) == expected


@pytest.mark.parametrize("framing", FRAMINGS[:5])
def test_an_event_counts_only_when_it_is_whole(framing: Any) -> None:
    data = framing([0, 1])
    end = data.rfind(b"}")
    assert received([data[:end]]).ledger.received == 1
    assert received([data[: end + 1]]).ledger.received == 2


def test_a_stream_is_open_with_the_first_byte_of_its_body() -> None:
    data = one_chunk_each([])
    body = data.index(OPENED)
    for end in range(len(data) + 1):
        assert received([data[:end]]).state.begun == (end > body)


def test_the_last_chunk_ends_the_stream() -> None:
    assert not received([one_chunk_each([0])]).state.ended
    assert received([one_chunk_each([0]), b"0\r\n\r\n"]).state.ended


def test_an_answer_of_known_length_is_a_stream_that_ended() -> None:
    """The gateway turns clients away like this."""
    data = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 20\r\n\r\n: full\nretry: 7407\n\n"
    assert received([data]).state.ended


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "no text/event-stream"),
        (HEAD + b"nonsense\r\n", "no size of a chunk"),
        (HEAD + b"3\r\nabcde\r\n", "longer than it said"),
        (HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: br\r\n\r\n"), "'br' is not known"),
        (GZIP_HEAD + chunk(b"retry: 2000\n\n"), "says gzip and is none"),
        (GZIP_HEAD + chunk(b"\x1f\x8b\x08\x08" + bytes(10)), "a kind that is not known"),
        (GZIP_HEAD + chunk(b"\x1f\x8b\x08\0" + bytes(6) + b"\xff" * 20), "can't be inflated"),
    ],
)
def test_what_is_no_event_stream_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(ResponseError, match=complaint):
        received([data])


def test_streams_that_share_bytes_are_checked_each_by_itself() -> None:
    """The decoder remembers pieces; what one stream has seen must not count for another."""
    ahead, behind = received([one_chunk_each([0, 1])]), received([one_chunk_each([0])])
    piece = chunk(event(2))
    for reception in (ahead, behind):
        reception.feed(piece, STAMP)
    assert findings(ahead.ledger, 3) == {"received": 3, "lost": 0, "duplicates": 0, "reordered": 0}
    assert findings(behind.ledger, 3) == {"received": 2, "lost": 1, "duplicates": 0, "reordered": 0}


def shared_state(framed: bytes) -> State:
    return received([framed]).state


def test_streams_that_are_between_two_pieces_share_one_state() -> None:
    """Otherwise a broadcast would be inflated for each of them, and the reader be what limits the figures."""
    one = shared_state(gzip_chunks([opened(2000)]))
    assert shared_state(gzip_chunks([opened(3000), event(0)])) is one
    assert shared_state(gzip_chunks([opened(4000) + event(0), b":\n"])) is one
    assert shared_state(one_chunk_each([0])) is not one
    for cut in range(1, 20):
        assert shared_state(compressed([0])[:-cut]) is not one


def test_what_leans_on_earlier_bytes_is_not_decoded_into_something_else() -> None:
    """A reference to before a flush would give other bytes to other streams, so sharing must not hide it."""
    deflate = zlib.compressobj(wbits=-15)
    header = b"\x1f\x8b\x08\0" + bytes(6)
    parts = [deflate.compress(event(number)) + deflate.flush(zlib.Z_SYNC_FLUSH) for number in range(2)]
    reception = received([GZIP_HEAD + chunk(header + parts[0])])
    assert reception.ledger.received == 1
    with pytest.raises(ResponseError, match="must stand by itself"):
        reception.feed(chunk(parts[1]), STAMP)


def test_the_end_of_the_compressed_data_ends_the_stream() -> None:
    assert received([GZIP_HEAD + chunk(gzip.compress(event(0), mtime=0))]).state.ended


def test_a_varied_payload_counts_only_if_every_digit_is_right() -> None:
    right = payload.encode_varied(7, STAMP, 400)
    place = right.index(b'"bid":') + 6
    wrong = right[:place] + b"0" + right[place + 1 :]
    assert [number for number, _, _ in payload.found(right)] == [7]
    assert not list(payload.found(wrong))
    assert not list(payload.found(right[:-1]))


def test_varied_payloads_compress_as_such_json_does() -> None:
    """Neither one text over and over nor noise: names repeat, values don't."""
    encoding = SseEncoding(False, False, zlib.compressobj(wbits=-zlib.MAX_WBITS), 20)
    sizes = [len(encoding.wrap(payload.encode_varied(number, 10**18 + number, 1000))) for number in range(50)]
    assert all(300 < size < 500 for size in sizes)


def test_a_new_count_begins_where_the_last_load_ended() -> None:
    reception = received([one_chunk_each([0, 1, 2])])
    reception.ledger.rebase(3)
    reception.feed(chunk(event(3)) + chunk(event(5)), STAMP)
    assert findings(reception.ledger, 6) == {"received": 2, "lost": 1, "duplicates": 0, "reordered": 0}


# The arithmetic


@pytest.mark.parametrize("size", [payload.SMALLEST, 110, 5000])
def test_a_payload_has_the_size_asked_for_and_is_json(size: int) -> None:
    data = payload.encode(123_456_789, 10**18, size)
    assert len(data) == size
    assert json.loads(data)["n"] == 123_456_789


@pytest.mark.parametrize("size", [*range(payload.SMALLEST_VARIED, 300), 1000, 50_000])
def test_so_has_a_varied_one(size: int) -> None:
    data = payload.encode_varied(123_456_789, 10**18, size)
    assert len(data) == size
    assert json.loads(data)["n"] == 123_456_789
    assert list(payload.found(data)) == [(123_456_789, 10**18, size)]
    assert data == payload.encode_varied(123_456_789, 10**18, size)
    assert data[40:] != payload.encode_varied(123_456_790, 10**18, size)[40:]


def test_messages_go_round_the_channels() -> None:
    for channels in (1, 2, 7):
        for messages in (0, 1, 6, 7, 8, 100):
            shares = [share(channel, channels, messages) for channel in range(channels)]
            assert sum(shares) == messages
            assert max(shares) - min(shares) <= 1
            assert shares == sorted(shares, reverse=True)


def test_percentiles() -> None:
    latencies = Latencies()
    assert latencies.percentile(0.99) == 0
    latencies.merge({str(5): 98, str(1000): 2})
    assert latencies.percentile(0.5) == (6 << SHIFT) / 1e6
    assert latencies.percentile(0.99) == latencies.percentile(1.0) == (1001 << SHIFT) / 1e6
