"""What verifies a token: a secret, or public keys."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from gateway.settings import SettingsError

HMAC = frozenset(("HS256", "HS384", "HS512"))
_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_EDWARDS = frozenset(("EdDSA",))
_MIN_RSA_BITS = 2048
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
MAX_KEYS = 1000
"""In one set."""
PUBLIC_ALGORITHMS = _RSA | frozenset(_CURVES.values()) | _EDWARDS


class Key(NamedTuple):
    """A key, and what it may be used for.

    Attributes:
        key: as PyJWT takes it.
        algorithms: those of its kind, so that a token can't choose how it is verified (RFC 8725, 3.1).
        kid: its name in a key set; None: it has none.
    """

    key: Any
    algorithms: frozenset[str]
    kid: str | None = None


def secret_key(secret: str) -> Key:
    """The key that is a shared secret."""
    return Key(secret.encode(), HMAC)


def pem_keys(text_or_path: str) -> list[Key]:
    """The public keys, or certificates, in a PEM text or file; several while keys are being changed.

    Raises:
        SettingsError: there is none, or one that can't be used.
    """
    text = text_or_path
    if "-----BEGIN" not in text:
        try:
            text = Path(text_or_path).read_text()
        except (OSError, ValueError) as error:
            raise _unusable(f"{text_or_path!r} is no PEM text, and no file that can be read ({error})") from None
    text = text.replace("\\n", "\n")  # as it stands in many environment files
    keys = [_pem_key(match[1], match[0]) for match in _BLOCK.finditer(text)]
    if not keys:
        raise _unusable("it has no PEM block (-----BEGIN PUBLIC KEY-----)")
    return keys


def _pem_key(kind: str, block: str) -> Key:
    if "PRIVATE" in kind:
        raise _unusable("it is a private key; the gateway needs only the public one")
    try:
        is_certificate = kind == "CERTIFICATE"
        text = block.encode()
        public = load_pem_x509_certificate(text).public_key() if is_certificate else load_pem_public_key(text)
        return Key(public, _algorithms_of(public))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(str(error) or type(error).__name__) from None


def _unusable(why: str) -> SettingsError:
    return SettingsError(f"jwt_public_key (--jwt-public-key, GATEWAY_JWT_PUBLIC_KEY): {why}.")


def _algorithms_of(public: object) -> frozenset[str]:
    """What a public key may verify.

    Raises:
        ValueError: nothing that a token is signed with.
    """
    if isinstance(public, RSAPublicKey):
        if public.key_size < _MIN_RSA_BITS:  # RFC 7518, 3.3
            raise ValueError(f"an RSA key of {public.key_size} bits is too weak; {_MIN_RSA_BITS} are needed")
        return _RSA
    if isinstance(public, EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return frozenset((_CURVES[public.curve.name],))
    if isinstance(public, Ed25519PublicKey | Ed448PublicKey):
        return _EDWARDS
    raise ValueError("a key of this kind signs no tokens; RSA, EC (P-256, P-384, P-521) and Ed25519 keys do")


def key_set(body: bytes) -> tuple[list[Key], int]:
    """The usable keys of a JSON Web Key Set (RFC 7517, 5), and how many were not looked at.

    Keys of other kinds, and for other uses, are left out; so is a shared secret: whoever can read the set could sign
    with it.

    Raises:
        ValueError: it is none.
    """
    try:
        keys = json.loads(body)["keys"]
        if not isinstance(keys, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError('the answer is no key set ({"keys": [...]})') from None
    return [key for each in keys[:MAX_KEYS] if (key := _from_set(each)) is not None], len(keys[MAX_KEYS:])


def _from_set(described: object) -> Key | None:
    if not isinstance(described, dict) or described.get("kty") == "oct" or described.get("use", "sig") != "sig":
        return None
    if "key_ops" in described and "verify" not in (described["key_ops"] or ()):
        return None
    try:
        public = PyJWK(described).key
        algorithms = _algorithms_of(public)
    except (PyJWTError, ValueError, TypeError, AttributeError):
        return None
    if (alg := described.get("alg")) is not None:
        algorithms &= {alg}
    kid = described.get("kid")
    return Key(public, algorithms, kid if isinstance(kid, str) else None) if algorithms else None


def matching(keys: Iterable[Key], algorithm: str, kid: str | None) -> list[Key]:
    """The keys that may verify a token with such a header."""
    return [key for key in keys if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)]
