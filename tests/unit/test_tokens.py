"""Tokens: which are accepted, and which are not."""

import base64
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.auth.errors import CannotTell, Unauthorized
from gateway.auth.keys import MAX_KEYS, Key, key_set, matching, pem_keys, secret_key
from gateway.auth.tokens import Tokens
from gateway.settings import SettingsError

pytestmark = pytest.mark.anyio

SECRET = "a secret that is long enough for anybody"
NOW = 1_800_000_000.0
CLAIM = {"gateway": {"subscribe": ["news"]}}

RSA_KEY = rsa.generate_private_key(65537, 2048)
KINDS: dict[str, Any] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA_KEY),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(private: Any) -> str:
    text: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def tokens(keys: Sequence[Key] | None = None, **options: Any) -> Tokens:
    return Tokens([secret_key(SECRET)] if keys is None else keys, now=lambda: NOW, **options)


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(CLAIM | claims, key, algorithm, headers=header or None)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_secret_verifies(algorithm: str) -> None:
    long_secret = SECRET * 2
    grant = await tokens([secret_key(long_secret)]).grant(signed({"sub": "alice"}, long_secret, algorithm))
    assert grant.sub == "alice"
    assert grant.subscribe.has("news")
    assert grant.expires_at is None


@pytest.mark.parametrize("algorithm", KINDS)
async def test_a_public_key_verifies(algorithm: str, tmp_path: Path) -> None:
    text = pem(KINDS[algorithm])
    (tmp_path / "key.pem").write_text(text)
    for given in (text, str(tmp_path / "key.pem"), text.replace("\n", "\\n")):
        assert (await tokens(pem_keys(given)).grant(signed({}, KINDS[algorithm], algorithm))).subscribe.has("news")


async def test_several_keys_while_they_are_changed() -> None:
    old, new = KINDS["ES256"], ec.generate_private_key(ec.SECP256R1())
    both = tokens(pem_keys(pem(old) + pem(new)))
    for key in (old, new):
        assert (await both.grant(signed({}, key, "ES256"))).subscribe.has("news")


@pytest.mark.parametrize("algorithm", [name for name in KINDS if name != "RS256"])
async def test_a_key_is_used_for_what_it_is_for(algorithm: str) -> None:
    """A token chooses its algorithm; were it any, its maker would choose how it is verified."""
    other = tokens(pem_keys(pem(KINDS["ES256" if algorithm != "ES256" else "ES384"])))
    with pytest.raises(Unauthorized, match="No key here verifies"):
        await other.grant(signed({}, KINDS[algorithm], algorithm))


async def test_a_public_key_is_no_secret() -> None:
    """Anybody who knows the public key could sign (RFC 8725, 2.1)."""
    text = pem(RSA_KEY).encode()
    header = {"alg": "HS256", "typ": "JWT"}
    body = unsigned(header, CLAIM).rsplit(".", 1)[0]
    forged = f"{body}.{base64.urlsafe_b64encode(_hmac(text, body.encode())).rstrip(b'=').decode()}"
    with pytest.raises(Unauthorized, match="No key here verifies a token with alg 'HS256'"):
        await tokens(pem_keys(text.decode())).grant(forged)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b",
        "a.b.c",
        "....",
        unsigned({"alg": "none"}, CLAIM),
        unsigned({"alg": "None"}, CLAIM),
        unsigned({"alg": ""}, CLAIM),
        unsigned({"alg": 7}, CLAIM),
        unsigned({"alg": None}, CLAIM),
        unsigned({}, CLAIM),
        unsigned({"alg": "HS256"}, CLAIM),
        unsigned({"alg": "HS256"}, CLAIM, b"wrong"),
        unsigned({"alg": "HS256", "kid": 7}, CLAIM, b"wrong"),
        unsigned({"alg": "HS256", "crit": ["exp"]}, CLAIM, b"wrong"),
        signed({}, SECRET.upper()),
        signed({})[:-1] + ("A" if signed({})[-2] != "A" else "B") * 2,
        "é" * 10,
        "[" * 100_000,
        base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.",
    ],
    ids=lambda token: token[:40],
)
async def test_what_nobody_has_signed_is_rejected(token: str) -> None:
    with pytest.raises(Unauthorized):
        await tokens().grant(token)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 0.1}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -1}, "expired"),
        ({"exp": "1900000000"}, "exp is no number"),
        ({"exp": True}, "exp is no number"),
        ({"exp": [1]}, "exp is no number"),
        ({"exp": float("nan")}, "exp is no number"),
        ({"exp": float("inf")}, "exp is no number"),
        ({"nbf": NOW + 0.1}, "not valid yet"),
        ({"nbf": "soon"}, "nbf is no number"),
        ({"iat": "then"}, "iat is no number"),
        ({"exp": 10**400}, "exp is no number"),
        ({"nbf": -(10**400)}, "nbf is no number"),
        ({"iat": 10**400}, "iat is no number"),
        ({"exp": None}, "exp is no number"),
        ({"nbf": None}, "nbf is no number"),
        ({"aud": []}, "somebody else"),
        ({"aud": ""}, "somebody else"),
        ({"aud": "other"}, "somebody else"),
        ({"sub": 7}, "Subject must be a string"),
        ({"gateway": ["news"]}, "must be an object"),
    ],
)
async def test_claims_that_do_not_count(claims: dict[str, Any], message: str) -> None:
    with pytest.raises(Unauthorized, match=message):
        await tokens().grant(signed(claims))


async def test_times_are_numbers_with_or_without_fractions() -> None:
    grant = await tokens().grant(signed({"exp": NOW + 0.5, "nbf": NOW - 0.5, "iat": NOW - 1}))
    assert (grant.expires_at, grant.issued_at) == (NOW + 0.5, NOW - 1)
    assert (await tokens().grant(signed({"exp": int(NOW) + 60}))).expires_at == NOW + 60


async def test_clocks_may_differ() -> None:
    """A stream ends when its token is no longer accepted: else it would come back with it, and end again at once."""
    lenient = tokens(leeway=10.0)
    assert (await lenient.grant(signed({"exp": NOW - 9, "nbf": NOW + 9}))).expires_at == NOW + 1
    for claims in ({"exp": NOW - 10}, {"nbf": NOW + 10.1}):
        with pytest.raises(Unauthorized):
            await lenient.grant(signed(claims))


async def test_audience_and_issuer() -> None:
    strict = tokens(audience=["gateway", "events"], issuer=["backend", "other"])
    assert (await strict.grant(signed({"aud": "gateway", "iss": "backend"}))).subscribe.has("news")
    assert (await strict.grant(signed({"aud": ["x", "events"], "iss": "other"}))).subscribe.has("news")
    for claims, message in (
        ({"iss": "backend"}, "has no aud"),
        ({"aud": "x", "iss": "backend"}, "somebody else"),
        ({"aud": "gateway"}, "has no iss"),
        ({"aud": "gateway", "iss": "x"}, "jwt_issuer"),
        ({"aud": 7, "iss": "backend"}, "somebody else"),
    ):
        with pytest.raises(Unauthorized, match=message):
            await strict.grant(signed(claims))


async def test_algorithms_can_be_restricted() -> None:
    only = tokens([secret_key(SECRET * 2)], algorithms=["HS512"])
    assert (await only.grant(signed({}, SECRET * 2, "HS512"))).subscribe.has("news")
    with pytest.raises(Unauthorized, match="No key here"):
        await only.grant(signed({}, SECRET * 2, "HS256"))


async def test_a_token_that_is_remembered_expires_all_the_same() -> None:
    now = NOW
    verifies = Tokens([secret_key(SECRET)], now=lambda: now)
    token = signed({"exp": NOW + 10})
    assert await verifies.grant(token) is await verifies.grant(token)
    now = NOW + 10
    with pytest.raises(Unauthorized, match="expired"):
        await verifies.grant(token)


async def test_a_token_that_is_remembered_is_not_valid_before_its_time() -> None:
    now = NOW
    verifies = Tokens([secret_key(SECRET)], now=lambda: now)
    token = signed({"nbf": NOW})
    assert (await verifies.grant(token)).subscribe.has("news")
    now = NOW - 1
    with pytest.raises(Unauthorized, match="not valid yet"):
        await verifies.grant(token)


async def test_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.auth.tokens._MAX_REMEMBERED", 3)
    verifies = tokens()
    for number in range(5):
        await verifies.grant(signed({"sub": str(number)}))
    assert len(verifies._remembered) == 3
    await verifies.grant(signed({"sub": "x" * 3000}))
    assert len(verifies._remembered) == 3, "large ones are not"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("/nowhere/key.pem", "no file that can be read"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "jwt_public_key"),
        ("-----BEGIN", "no PEM block"),
        (
            KINDS["ES256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "only the public one",
        ),
        (pem(rsa.generate_private_key(65537, 1024)), "too weak"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "signs no tokens"),
    ],
    ids=["no file", "no key", "cut off", "private", "weak", "other curve"],
)
def test_a_key_that_cannot_be_used_is_named(given: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        pem_keys(given)


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    algorithm = next(name for name, key in KINDS.items() if key is private)
    described: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key()))
    return described | members


def test_a_key_set_has_the_keys_that_verify() -> None:
    described = [
        jwk(KINDS["ES256"], kid="a"),
        jwk(RSA_KEY, kid="b", alg="RS256", use="sig"),
        jwk(RSA_KEY, kid="c", use="enc"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "d"},
        {"kty": "EC", "crv": "P-256", "kid": "e"},
        jwk(KINDS["EdDSA"], kid=7),
        jwk(KINDS["ES256"], kid="f", alg="RS256"),
        jwk(KINDS["ES256"], kid="g", key_ops=["encrypt"]),
        jwk(KINDS["ES384"], kid="h", key_ops=["verify"]),
        "nonsense",
    ]
    keys, left_out = key_set(json.dumps({"keys": described}).encode())
    assert left_out == 0
    assert [(key.kid, sorted(key.algorithms)) for key in keys] == [
        ("a", ["ES256"]), ("b", ["RS256"]), (None, ["EdDSA"]), ("h", ["ES384"]),
    ]  # fmt: skip


def test_so_many_keys_of_a_set_are_used() -> None:
    keys, left_out = key_set(json.dumps({"keys": [jwk(KINDS["EdDSA"])] * (MAX_KEYS + 7)}).encode())
    assert (len(keys), left_out) == (MAX_KEYS, 7)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": 7}', b"<html>", b"[" * 100_000, b"\xff"])
def test_what_is_no_key_set_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="no key set"):
        key_set(body)


class Remote:
    """A key set that is read when it is asked for."""

    def __init__(self, keys: Sequence[Key], available: bool = True) -> None:
        self._available = available
        self.keys = keys
        self.asked: list[tuple[str, str | None]] = []

    async def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        self.asked.append((algorithm, kid))
        if not self._available:
            raise CannotTell("away")
        return matching(self.keys, algorithm, kid)


async def test_a_key_of_the_set_is_chosen_by_its_name() -> None:
    keys, _ = key_set(json.dumps({"keys": [jwk(KINDS["ES256"], kid="a"), jwk(RSA_KEY, kid="b")]}).encode())
    remote = Remote(keys)
    verifies = tokens((), key_set=remote)
    assert (await verifies.grant(signed({}, KINDS["ES256"], "ES256", kid="a"))).subscribe.has("news")
    assert (await verifies.grant(signed({}, RSA_KEY, "PS256", kid="b"))).subscribe.has("news")
    assert (await verifies.grant(signed({}, RSA_KEY, "RS256"))).subscribe.has("news")
    for algorithm, kid in (("ES256", "b"), ("RS256", "c"), ("HS256", "a")):
        key = KINDS.get(algorithm, SECRET)
        with pytest.raises(Unauthorized, match="No key here"):
            await verifies.grant(signed({}, key, algorithm, kid=kid))


async def test_nobody_is_rejected_because_the_keys_cannot_be_read() -> None:
    verifies = tokens((), key_set=Remote((), available=False))
    with pytest.raises(CannotTell):
        await verifies.grant(signed({}, RSA_KEY, "RS256"))


async def test_own_keys_come_before_the_set() -> None:
    remote = Remote((), available=False)
    assert (await tokens(key_set=remote).grant(signed({}))).subscribe.has("news")
    assert remote.asked == []
