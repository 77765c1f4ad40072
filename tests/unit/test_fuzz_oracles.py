"""What the fuzzers compare with: it must see what is wrong."""

import base64
import json
from typing import Any

import pytest

from fuzz.answers import Malformed, read_answers
from fuzz.contract import Delivered, Rejected, outcome
from fuzz.token_contract import Worth, allows, allows_pattern, matches, worth
from fuzz.token_keys import ALGORITHMS, sign

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


def _token(claims: Any, algorithm: str = "HS256", **header: Any) -> str:
    parts = [json.dumps({"alg": algorithm, **header}).encode(), json.dumps(claims).encode()]
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    signature = base64.urlsafe_b64encode(sign(algorithm, text.encode())).rstrip(b"=").decode()
    return f"{text}.{signature}"


def _worth(claims: Any) -> Worth:
    found = worth(_token(claims))
    assert found is not None
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token(algorithm: str) -> None:
    claim = {"subscribe": ["user.{sub}", "news.*"], "publish": ["a"], "admin": True}
    token = _token({"sub": "alice", "exp": 4e9, "nbf": 1, "gateway": claim}, algorithm, kid="a")
    found = worth(token)
    globs = {"subscribe": ["user.alice", "news.*"], "publish": ["a"], "presence": []}
    assert found == Worth("alice", globs, admin=True, certain=True)
    assert worth(token[:-6] + "AAAAAA") is None
    assert worth(_token({}, algorithm, crit=["exp"])) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1}, {"exp": "4000000000"}, {"exp": None}, {"exp": True}, {"exp": float("nan")}, {"nbf": 4e9},
        {"aud": "a"}, [],
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_must_be_rejected(claims: Any) -> None:
    assert worth(_token(claims)) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 1}, {"gateway": ["*"]}, {"gateway": {"subscribe": "*"}}, {"gateway": {"admin": 1}}, {"iat": "1"},
        {"jti": 7},
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_allow_nothing_if_they_are_accepted(claims: Any) -> None:
    found = _worth(claims)
    assert not found.certain
    assert not found.admin
    assert not any(found.globs.values())


@pytest.mark.parametrize(
    ("sub", "glob", "expected"),
    [
        ("a.b", "user:{sub}", "user:a.b"), ("a.b", "user.{sub}", None), ("a", "[{sub}]", None), ("*", "{sub}", None),
        ("", "{sub}", None), (None, "{sub}", None), (None, "{SUB}", "{SUB}"), ("{sub}", "x{sub}", "x{sub}"),
    ],
)  # fmt: skip
def test_the_subject_in_a_glob(sub: str | None, glob: str, expected: str | None) -> None:
    claims = {"gateway": {"subscribe": [glob]}} | ({} if sub is None else {"sub": sub})
    assert _worth(claims).globs["subscribe"] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("glob", "name", "is_match"),
    [
        ("n*s", "news", True), ("n*s", "newsy", False), ("[a-c]", "b", True), ("[c-a]", "b", True),
        ("[^a]", "a", False),
        ("[a", "a", True), ("[", "", False), ("\\*", "*", True), ("\\*", "a", False), ("a\\", "a\\", True),
        ("?", "", False),
        ("**", "", True), ("*a*b*", "xaybz", True), ("\\?", "a", False),
    ],
)  # fmt: skip
def test_globs(glob: str, name: str, is_match: bool) -> None:
    assert matches(glob.encode(), name.encode()) == is_match


def test_what_tokens_allow_together() -> None:
    both = [_worth({"gateway": {"subscribe": ["news.*"]}}), _worth({"gateway": {"subscribe": ["a?"]}})]
    assert [allows(both, "subscribe", name) for name in ("news.x", "ab", "b", "gateway.x")] == [
        True,
        True,
        False,
        False,
    ]
    assert not allows(both, "publish", "news.x")
    patterns = ("news.*", "news.[a]", "a?", "ab", "*", "gateway.*")
    assert [allows_pattern(both, pattern) for pattern in patterns] == [True, True, True, False, False, False]
