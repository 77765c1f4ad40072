"""Signatures: what is signed is known again where it was signed for, and nowhere else, and doubt is said."""

from itertools import product

import pytest

from gateway.broker.signature import LENGTH, Signer, signature_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(calls: list[str], clock: Clock) -> Signer:
    made = Signer(clock)
    made.on_doubt = lambda: calls.append("doubt")
    return made


def test_what_is_signed_is_known_again(signer: Signer, calls: list[str]) -> None:
    signer.adopt(b"secret")
    signature = signer.sign(b"here", b"tick 1")
    assert len(signature) == LENGTH
    assert signer.has_signed(b"tick 1", signature, b"here")
    assert signer.has_signed(b"tick 1", signature, b"there", b"here"), "in one of the places"
    assert calls == []
    assert not signer.has_signed(b"tick 2", signature, b"here")
    assert not signer.has_signed(b"tick 1", b"", b"here")
    assert not signer.has_signed(b"tick 1", signature[:-1], b"here")
    assert calls == ["doubt"] * 3


def test_a_signature_counts_in_one_place(signer: Signer, calls: list[str]) -> None:
    signer.adopt(b"secret")
    assert not signer.has_signed(b"text", signer.sign(b"gateway.tick.1", b"text"), b"gateway.tick.0")
    assert not signer.has_signed(b"text", signer.sign(b"1", b"text"), b"0", b"")
    assert calls == ["doubt"] * 2, "once for all places"
    parts = [b"", b"a", b"b", b"a b", b" "]
    signed = {signer.sign(where, text) for where, text in product(parts, parts)}
    assert len(signed) == len(parts) ** 2, "the place's end is part of it"


def test_the_same_as_in_redis(signer: Signer) -> None:
    """broker/library.lua: redis.sha1hex(secret .. redis.sha1hex(secret .. where .. NUL .. text)), 20 digits."""
    signer.adopt(b"secret")
    assert signer.sign(b"where", b"text") == b"0950bf969adbd7dcc297"


def test_another_secret_signs_otherwise(signer: Signer) -> None:
    signer.adopt(b"one")
    before = signer.sign(b"here", b"text")
    signer.adopt(b"two")
    assert signer.sign(b"here", b"text") != before
    assert not signer.has_signed(b"text", before, b"here")


def test_what_was_under_way_at_a_change_is_known_for_a_while(signer: Signer, clock: Clock, calls: list[str]) -> None:
    """Only between workers; for what is counted there is no such time."""
    signer.adopt(b"one")
    sent = signer.sign(b"here", b"answer")
    assert signer.has_signed_lately(b"answer", sent, b"here")
    signer.adopt(b"two")
    clock.now = 9.9
    assert signer.has_signed_lately(b"answer", sent, b"here")
    assert signer.has_signed_lately(b"answer", signer.sign(b"here", b"answer"), b"here")
    assert calls == []
    assert not signer.has_signed_lately(b"another", sent, b"here")
    assert not signer.has_signed_lately(b"answer", sent, b"there")
    signer.adopt(b"two")
    clock.now = 10.0
    assert not signer.has_signed_lately(b"answer", sent, b"here"), "nor does the same secret again give more time"
    assert calls == ["doubt"] * 3


def test_without_a_secret_nothing_is_signed(signer: Signer) -> None:
    assert signer.sign(b"here", b"text") == b""
    signer.adopt(b"")
    assert signer.sign(b"here", b"text") == b""
    assert signer.has_signed(b"text", b"", b"here"), "this Redis can't sign, so what comes is taken for what it says"
    assert not signer.has_signed(b"text", b"x", b"here")
    signer.adopt(b"first")
    assert not signer.has_signed_lately(b"text", b"", b"here"), "nobody has signed with none"
    assert signature_of(b"", b"here", b"text") == b""
