"""What the fuzzers compare with: it must see what is wrong."""

import pytest

from fuzz.answers import Malformed, read_answers
from fuzz.contract import Delivered, Rejected, outcome

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        _HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nx",
        _HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
        _HEAD + b"content-length: 1\r\n\r\nxy",
        _HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nx\r\n0\r\n\r\n",
        _HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nmore",
        _HEAD + b"x\ny: z\r\n\r\n",
    ],
)
def test_no_response(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_answers(data)


def test_responses() -> None:
    chunked = _HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    answers = read_answers(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked + _HEAD + b"content-length: 5\r\n\r\nhel")
    assert [(each.status, each.body, each.whole) for each in answers] == [
        (100, b"", True),
        (200, b"x", True),
        (200, b"hel", False),
    ]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"a\r\nb\rc", Delivered("a\nb\nc", False)),
        (b'{"data": 1}', Delivered('{"data": 1}', False)),
        (b'{"event": "e", "data": [1], "id": "7"}', Delivered([1], True, "e", "7")),
        (b'{"event": "e", "data": "d", "other": 1}', Delivered('{"event": "e", "data": "d", "other": 1}', False)),
        (b"\xff", Rejected("not_utf8")),
        (b'{"event": "gateway.open", "data": ""}', Rejected("bad_envelope")),
        (b'{"event": "e", "data": "", "id": "2.0.0"}', Rejected("bad_envelope")),
        (b"\x1egateway:1\nx", Rejected("bad_durable")),
        (b"x" * 1_048_577, Rejected("too_large")),
    ],
)
def test_the_contract(payload: bytes, expected: Delivered | Rejected) -> None:
    assert outcome(payload) == expected
