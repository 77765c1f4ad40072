"""Framing: what is written means what was published, for a reader that follows the standard."""

import json
import zlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.fanout import sse
from gateway.fanout.encodings import Encodings, SseEncoding
from gateway.fanout.in_band import closing, opened
from gateway.memory.event import (
    DURABLE_MARK,
    ENVELOPE_KEYS,
    Event,
    Undeliverable,
    check_publishable,
    own_event,
    parse,
    split_durable,
)
from gateway.memory.place import NOWHERE
from gateway.memory.replay import Replayed
from gateway.memory.ring import Limits, Ring
from gateway.memory.topic import Topic
from testing.reference import Reference
from testing.stream import Received

MIB = 1_048_576
ENCODINGS = Encodings(gzip_min_bytes=256)

# In the manner of the Web Platform Tests' eventsource/format-*: what a stream means. They hold the reference.
STREAMS: dict[str, tuple[bytes, list[Received]]] = {
    "bom": ("\ufeffdata:1\n\n\ufeffdata:2\n\ndata:3\n\n".encode(), [Received("1"), Received("3")]),
    "bom twice": ("\ufeff\ufeffdata:1\n\ndata:2\n\n".encode(), [Received("2")]),
    "comments": (b"data:1\n:\0\n:\r\ndata:2\n:xx\rdata:3\n:data:fail\r:xx\ndata:4\n\n", [Received("1\n2\n3\n4")]),
    "data before final empty line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", [Received("test1")]),
    "field data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [Received(""), Received("\n"), Received("test")]),
    "field event": (b"event:test\ndata:x\n\ndata:x\n\n", [Received("x", "test"), Received("x")]),
    "field event empty": (b"event: \ndata:data\n\n", [Received("data")]),
    "field id": (b"data:hello\nid:1\n\ndata:again\n\n", [Received("hello", id="1"), Received("again", id="1")]),
    "field id null": (b"data:hello\nid:\0\n\n", [Received("hello")]),
    "field parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\n"
        b"da-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [Received("\0\n 2\n1\n3\n\n4")],
    ),
    "field unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n",
        [Received("test\n")],
    ),
    "leading space": (b"data:\ttest\rdata: \ndata:test\n\n", [Received("\ttest\n\ntest")]),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [Received("test\n\ntest")]),
    "null character": (b"data:\0\n\n\n\n", [Received("\0")]),
    "utf-8": ("data:ok…\n\n".encode(), [Received("ok…")]),
}


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_the_reference_reads_streams_as_browsers_do(stream: bytes, events: list[Received]) -> None:
    assert Reference(stream).events == events


@pytest.mark.parametrize(("value", "retry"), [("3000", 3000), ("x", None), ("1000x", None), ("", None), ("-1", None)])
def test_the_reference_reads_retry_as_browsers_do(value: str, retry: int | None) -> None:
    assert Reference(f"retry:{value}\n\n".encode()).retry == retry


# Text with everything that could end a line, a field or an event in it, more often than chance would have it.
texts = st.text(
    st.one_of(
        st.sampled_from(["\r", "\n", "\0", ":", " ", "\ufeff", "\u2028", "\x85", "{", '"', "\\"]),
        st.characters(exclude_categories=["Cs"]),
    )
)
safe_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=60)


@given(texts)
def test_any_text_comes_back(text: str) -> None:
    event = parse(text.encode(), False, MIB, 256)
    assert Reference(sse.body(event)).events == [Received(_with_lf(text))]


@given(st.lists(texts, min_size=1, max_size=5), st.booleans())
def test_frames_joined_are_the_same_events(payloads: list[str], named: bool) -> None:
    events = [parse(payload.encode(), False, MIB, 256) for payload in payloads]
    encoding = ENCODINGS.get(chunked=False, named=named)
    ids = [str(place) for place in range(len(events))]
    stream = encoding.encode([Replayed("a channel", event, id_) for event, id_ in zip(events, ids, strict=True)])
    type_ = "a channel" if named else "message"
    expected = [Received(_with_lf(payload), type_, id_) for payload, id_ in zip(payloads, ids, strict=True)]
    assert Reference(stream).events == expected
    assert encoding.join(encoding.bodies("a channel", events), ids) == stream, "each behind an id of its stream's own"


@given(
    type_=safe_texts.filter(lambda text: not text.startswith("gateway.")),
    data=st.one_of(texts, st.integers(), st.booleans(), st.none(), st.lists(texts), st.dictionaries(texts, texts)),
    id_=st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60),
    retry=st.none() | st.integers(0, 86_400_000),
    comment=st.none() | texts,
)
def test_any_envelope_comes_back(
    type_: str, data: Any, id_: str | None, retry: int | None, comment: str | None
) -> None:
    fields = {"event": type_, "data": data, "id": id_, "retry": retry, "comment": comment}
    payload = json.dumps({name: value for name, value in fields.items() if value is not None or name == "data"})
    parsed = parse(payload.encode(), False, MIB, 256)
    read = Reference(sse.id_line(parsed.own_id) + sse.body(parsed))
    (event,) = read.events
    assert event.type == (type_ or "message")
    assert event.id == (id_ or "")
    assert read.retry == retry
    if isinstance(data, str):
        assert event.data == _with_lf(data)
    else:
        assert json.loads(event.data) == data
        assert "\n" not in event.data


@given(st.dictionaries(st.sampled_from([*sorted(ENVELOPE_KEYS), "other"]), st.text("ab"), min_size=1))
def test_only_envelopes_are_taken_for_envelopes(fields: dict[str, str]) -> None:
    payload = json.dumps(fields).encode()
    is_envelope = {"event", "data"} <= fields.keys() <= ENVELOPE_KEYS
    if is_envelope and "retry" in fields:
        with pytest.raises(Undeliverable):
            parse(payload, False, MIB, 256)
        return
    (event,) = Reference(sse.body(parse(payload, False, MIB, 256))).events
    assert event.data == (fields["data"] if is_envelope else payload.decode())


@given(st.binary())
def test_any_bytes_are_delivered_or_refused(payload: bytes) -> None:
    fits = len(payload) <= 100
    try:
        payload.decode()
    except UnicodeDecodeError:
        fits = False
    if fits and b'"event"' not in payload:
        assert len(Reference(sse.body(parse(payload, False, 100, 20))).events) == 1
    elif not fits:
        with pytest.raises(Undeliverable):
            parse(payload, False, 100, 20)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_chunks_carry_what_was_put_in(pieces: list[bytes]) -> None:
    chunked = SseEncoding(True, False, None, 0)
    wire = b"".join(chunked.wrap(piece) for piece in pieces if piece) + chunked.end
    assert _unchunked(wire) == b"".join(pieces)


@given(st.lists(st.binary(max_size=2000), max_size=8), st.integers(0, 7), st.sampled_from([0, 256, 65_535]))
def test_compressed_pieces_are_decoded_one_by_one_from_wherever_a_client_begins(
    pieces: list[bytes], begin: int, min_bytes: int
) -> None:
    encoding = SseEncoding(False, False, zlib.compressobj(wbits=-zlib.MAX_WBITS), min_bytes)
    sent = [encoding.wrap(piece) for piece in pieces]
    decoder = zlib.decompressobj(31)  # gzip, and nothing else
    assert decoder.decompress(encoding.header) == b""
    for piece, wire in list(zip(pieces, sent, strict=True))[begin:]:
        assert decoder.decompress(wire) == piece, "held back"
        assert decoder.decompress(encoding.ping) == b":\n"


@pytest.mark.parametrize("min_bytes", [0, 65_535])
def test_compressed_bodies_are_joined_with_the_ids_of_single_streams(min_bytes: int) -> None:
    encoding = Encodings(min_bytes).get(chunked=False, named=True, gzip=True)
    events = [Event(b"first"), Event(b"second", "own"), Event(b"third")]
    stream = encoding.header + encoding.join(encoding.bodies("news", events), ["1", None, "3"])
    assert Reference(zlib.decompressobj(31).decompress(stream)).events == [
        Received("first", "news", "1"),
        Received("second", "own", "1"),
        Received("third", "news", "3"),
    ]


def test_the_gateways_own_events() -> None:
    topics = [Topic(name, "*" in name, Ring(Limits(0, 0, 0, 0))) for name in ("a", "b*", "c")]
    for event, type_, data in (
        (opened(topics, 1.5), "gateway.open", {"channels": ["a", "c"], "patterns": ["b*"]}),
        (opened(topics[::2], 1.5), "gateway.open", {"channels": ["a", "c"]}),
        (closing("max_age", 1.5), "gateway.closing", {"reason": "max_age"}),
    ):
        read = Reference(sse.body(event))
        assert read.retry == 1500
        assert [(each.type, json.loads(each.data)) for each in read.events] == [(type_, data)]


def test_deep_nesting_is_refused_or_no_json_to_us() -> None:
    for number in (b"1", b"1234567890123456789012"):
        deep = b"[" * 1000 + number + b"]" * 1000
        with pytest.raises(Undeliverable, match="`data` can't be written as JSON"):
            parse(b'{"event":"x","data":' + deep + b"}", False, MIB, 256)
    too_deep = b'{"event":"x","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert parse(too_deep, False, MIB, 256).type is None, (
        "orjson refuses it, so it is no JSON to us and goes out as it is"
    )


def test_own_events_and_named_frames() -> None:
    own = own_event("gateway.gap", {"channel": "a\nb", "since": None})
    assert Reference(sse.body(own)).events == [Received('{"channel":"a\\nb","since":null}', "gateway.gap")]
    assert sse.body(own, "other") == sse.body(own)
    assert sse.body(Event(b"1"), "x") == b"event: x\ndata: 1\n\n"
    assert sse.id_line(None) == b"", "an event without an id leaves the client's as it is"


@pytest.mark.parametrize("own_id", ["two words", "\u00e4", "a\tb", "a\nb", NOWHERE, "17~2.9184e72a002.4"])
def test_ids_that_could_not_come_back_are_rejected(own_id: str) -> None:
    with pytest.raises(Undeliverable, match="`id`") as rejected:
        parse(json.dumps({"event": "", "data": "", "id": own_id}).encode(), False, MIB, 256)
    assert rejected.value.reason == "bad_envelope"


def test_empty_fields_mean_none() -> None:
    event = parse(b'{"event":"","data":"x","id":""}', False, MIB, 256)
    assert (event.type, event.own_id) == (None, None)


@given(st.binary(max_size=40), st.integers(10**13, 10**15), st.integers(0, 10**15))
def test_durable_messages(body: bytes, generation: int, number: int) -> None:
    assume(not body.startswith(DURABLE_MARK))  # which is rejected
    payload = b"%b%d-%010d\n%b" % (DURABLE_MARK, generation, number, body)
    durable, rest = split_durable(payload)
    assert durable is not None
    assert (durable.generation, durable.number, rest) == (generation, number, body)
    with pytest.raises(Undeliverable, match="mark"):
        check_publishable(payload, True, MIB, 256)
    assert split_durable(body) == (None, body)


@pytest.mark.parametrize(
    "head", [b"", b"x\n", b"123-4\n", b"12345678901234-\n", b"12345678901234-5", b"12345678901234-5 \n"]
)
def test_marks_without_a_number_are_rejected(head: bytes) -> None:
    if head != b"12345678901234-5":
        with pytest.raises(Undeliverable):
            split_durable(DURABLE_MARK + head)
    with pytest.raises(Undeliverable):
        split_durable(DURABLE_MARK + b"12345678901234-5\n" + DURABLE_MARK)


def test_what_is_signed_of_a_durable_message_is_kept_as_it_was_sent() -> None:
    signed, body = split_durable(DURABLE_MARK + b"12345678901234-0000000005 0123456789abcdef0123\nfirst\nsecond")
    assert signed is not None
    assert signed.text == b"12345678901234-0000000005"
    assert signed.signature == b"0123456789abcdef0123"
    assert body == b"first\nsecond"
    unsigned, _ = split_durable(DURABLE_MARK + b"12345678901234-0000000005\n")
    assert unsigned is not None
    assert unsigned.signature == b""


ENVELOPE = b'{"event":"news","data":"x","id":"17"}'


@pytest.mark.parametrize(
    ("payload", "durable", "reason"),
    [
        (b"x" * 101, False, "too_large"),
        (b"\xff", False, "not_utf8"),
        (b'{"event":1,"data":""}', False, "bad_envelope"),
        (b'{"event":"%b","data":""}' % (b"x" * 21), False, "bad_envelope"),
        (ENVELOPE, True, "bad_envelope"),
        (DURABLE_MARK, False, "bad_durable"),
    ],
)
def test_a_publisher_is_told_why_it_could_not_be_delivered(payload: bytes, durable: bool, reason: str) -> None:
    with pytest.raises(Undeliverable) as refused:
        check_publishable(payload, durable, 100, 20)
    assert refused.value.reason == reason
    assert str(refused.value)


def test_what_is_marked_wrongly_is_counted_as_such() -> None:
    for payload in (DURABLE_MARK + b"x", DURABLE_MARK + b"12345678901234-5\n" + DURABLE_MARK):
        with pytest.raises(Undeliverable) as refused:
            split_durable(payload)
        assert refused.value.reason == "bad_durable"


@pytest.mark.parametrize("payload", [b"x" * 100, b'{"event":"%b","data":""}' % (b"x" * 20), ENVELOPE])
def test_what_just_fits_can_be_published(payload: bytes) -> None:
    check_publishable(payload, False, 100, 20)


@pytest.mark.parametrize(
    "payload",
    [
        b'\r\n\t {"event":"news","data":"x"}\n',
        b'{"\\u0065vent":"news","data":"x"}',
        b'{"\\u0065vent":"news","\\u0064ata":"x"}',
    ],
)
def test_an_envelope_may_be_written_in_any_way_that_is_json(payload: bytes) -> None:
    event = parse(payload, False, MIB, 256)
    assert (event.type, event.data) == ("news", b"x")


@pytest.mark.parametrize("retry", [0, 86_400_000])
def test_any_reconnection_time_up_to_a_day(retry: int) -> None:
    assert parse(b'{"event":"","data":"","retry":%d}' % retry, False, MIB, 256).retry == retry


@pytest.mark.parametrize("retry", ["-1", "86400001", "true", "1.0", '"1"', "null"])
def test_no_other_reconnection_time(retry: str) -> None:
    with pytest.raises(Undeliverable, match="`retry`"):
        parse(b'{"event":"","data":"","retry":%b}' % retry.encode(), False, MIB, 256)


@pytest.mark.parametrize(
    ("value", "named"),
    [("1", "a number"), ("{}", "an object"), ("[]", "an array"), ("true", "a boolean"), ("null", "null")],
)
def test_a_comment_is_text(value: str, named: str) -> None:
    with pytest.raises(Undeliverable, match=f"`comment` .*{named}$"):
        parse(b'{"event":"","data":"","comment":%b}' % value.encode(), False, MIB, 256)


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("value", ["a\r", "a\n", "\0", 1, "x" * 257])
def test_fields_that_are_no_line_of_text_are_refused(name: str, value: object) -> None:
    with pytest.raises(Undeliverable, match=f"`{name}`"):
        parse(json.dumps({"event": "", "data": "", name: value}).encode(), False, MIB, 256)


def test_a_publishers_number_stays_as_it_is() -> None:
    for number in (b"12345678901234567890123", b"0.12345678901234567890123", b"1234567890123456789"):
        event = parse(b'{"event":"","data":[%b,1.50]}' % number, False, MIB, 256)
        assert number in event.data


def test_sizes() -> None:
    assert Event(b"four").size == 4
    assert Event(b"four", comment=b"five!").size == 9


def test_a_durable_message_has_no_id_of_its_publishers() -> None:
    with pytest.raises(Undeliverable, match="position is its id"):
        parse(b'{"event":"","data":"","id":"17"}', True, MIB, 256)


def _with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unchunked(wire: bytes) -> bytes:
    body = b""
    while True:
        size, _, wire = wire.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert wire == b"\r\n"
            return body
        body, end, wire = body + wire[:length], wire[length : length + 2], wire[length + 2 :]
        assert end == b"\r\n"
