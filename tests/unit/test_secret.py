"""The notice of a new secret: who believes it, and which secret it announces."""

import pytest

from gateway.broker.secret import NOTICES, Secret, dump_notice, load_notice
from gateway.broker.signature import Signer

NEW = Secret(b"new", 7)


@pytest.fixture
def signer() -> Signer:
    made = Signer()
    made.adopt(b"old")
    return made


def test_a_notice_announces_one_secret(signer: Signer) -> None:
    notice = load_notice(signer, dump_notice(b"old", NEW))
    assert notice is not None
    assert notice.serial == 7
    assert notice.is_of(NEW)
    for another in (Secret(b"new", 8), Secret(b"another", 7), Secret(b"old", 7), Secret()):
        assert not notice.is_of(another)


def test_a_notice_does_not_show_the_secret() -> None:
    payload = dump_notice(b"the former secret", Secret(b"the new secret", 1))
    assert b"secret" not in payload


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"7",
        b"garbage and more of it",
        dump_notice(b"another", NEW),
        dump_notice(b"new", NEW),
        dump_notice(b"", NEW),
        dump_notice(b"old", NEW).replace(b" 7 ", b" 8 "),
        dump_notice(b"old", NEW)[:-1],
    ],
)
def test_who_does_not_know_the_former_secret_is_not_believed(signer: Signer, payload: bytes) -> None:
    doubts: list[str] = []
    signer.on_doubt = lambda: doubts.append("doubt")
    assert load_notice(signer, payload) is None
    assert doubts == ["doubt"]


def test_nothing_else_that_is_signed_is_a_notice(signer: Signer) -> None:
    said = b"7 x"
    elsewhere = signer.sign(b"gateway.tick.0", said)
    assert load_notice(signer, elsewhere + b" " + said) is None
    assert load_notice(signer, signer.sign(NOTICES, said) + b" " + said) is not None


@pytest.mark.parametrize("secret", [None, b""])
def test_where_nothing_is_signed_there_are_no_notices(secret: bytes | None) -> None:
    signer = Signer()
    if secret is not None:
        signer.adopt(secret)
    assert load_notice(signer, dump_notice(b"", NEW)) is None
    assert load_notice(signer, b" x") is None
