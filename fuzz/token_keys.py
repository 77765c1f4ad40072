"""Keys for tokens. They and what they sign are the same in each run, so that cases are, too."""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "the secret of the fuzzers' tokens, for everybody to know, and long enough for SHA-512"
_HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_CURVE = ec.derive_private_key(0x5EC2E7, ec.SECP256R1())
_EDWARDS = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"edwards").digest())
_HALF = 32
"""Bytes of each of the two numbers in a signature of ES256."""

ALGORITHMS = (*_HASHES, "ES256", "EdDSA")
"""What the keys verify."""
PEM = "".join(
    key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for key in (_CURVE, _EDWARDS)
)
SETTINGS: Mapping[str, str] = MappingProxyType({"jwt_secret": SECRET, "jwt_public_key": PEM})


def sign(algorithm: str, text: bytes, secret: str = SECRET) -> bytes:
    """A signature that is good, if the secret is."""
    if algorithm in _HASHES:
        return hmac.digest(secret.encode(), text, _HASHES[algorithm])
    if algorithm == "EdDSA":
        return _EDWARDS.sign(text)
    numbers = decode_dss_signature(_CURVE.sign(text, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return b"".join(number.to_bytes(_HALF, "big") for number in numbers)


def verifies(algorithm: str, text: bytes, signature: bytes) -> bool:
    """Whether it is a signature of the text."""
    if algorithm in _HASHES:
        return hmac.compare_digest(sign(algorithm, text), signature)
    try:
        if algorithm == "EdDSA":
            _EDWARDS.public_key().verify(signature, text)
        elif len(signature) != 2 * _HALF:
            return False
        else:
            numbers = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
            _CURVE.public_key().verify(encode_dss_signature(*numbers), text, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
