"""Signatures: what is signed is known again, and doubt and change are said."""

import pytest

from gateway.broker.signature import LENGTH, Signer


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def signer(calls: list[str]) -> Signer:
    made = Signer()
    made.on_change = lambda: calls.append("change")
    made.on_doubt = lambda: calls.append("doubt")
    return made


def test_what_is_signed_is_known_again(signer: Signer, calls: list[str]) -> None:
    signer.adopt(b"secret")
    signature = signer.sign(b"tick 1")
    assert len(signature) == LENGTH
    assert signer.has_signed(b"tick 1", signature)
    assert calls == []
    assert not signer.has_signed(b"tick 2", signature)
    assert not signer.has_signed(b"tick 1", b"")
    assert not signer.has_signed(b"tick 1", signature[:-1])
    assert calls == ["doubt"] * 3


def test_the_same_as_in_redis(signer: Signer) -> None:
    """broker/library.lua: redis.sha1hex(secret .. redis.sha1hex(secret .. text)), the first 20 digits."""
    signer.adopt(b"secret")
    assert signer.sign(b"text") == b"4678760eea120c708f25"


def test_another_secret_signs_otherwise(signer: Signer, calls: list[str]) -> None:
    signer.adopt(b"one")
    assert calls == [], "the first secret is no change"
    before = signer.sign(b"text")
    signer.adopt(b"one")
    assert calls == []
    signer.adopt(b"two")
    assert calls == ["change"]
    assert signer.sign(b"text") != before
    assert not signer.has_signed(b"text", before)


def test_without_a_secret_nothing_is_signed(signer: Signer) -> None:
    assert signer.sign(b"text") == b""
    signer.adopt(b"")
    assert signer.sign(b"text") == b""
    assert signer.has_signed(b"text", b""), "this Redis can't sign, so what comes is taken for what it says"
    assert not signer.has_signed(b"text", b"x")
