"""Signed stream names of AnyCable and of Rails' Turbo (settings `anycable_secret`, `turbo_secret_key_base`)."""

import hmac
import json
from base64 import b64decode
from collections.abc import Iterable
from hashlib import pbkdf2_hmac

from gateway.auth.channels import Channels
from gateway.auth.errors import Unauthorized
from gateway.auth.grant import Grant

_SEPARATOR = "--"
_TURBO_SALT = b"turbo/signed_stream_verifier_key"
# ActiveSupport::KeyGenerator as Rails makes it.
_TURBO_ROUNDS, _TURBO_BYTES = 1000, 64


def anycable_key(secret: str) -> bytes:
    """The key of AnyCable's setting `streams_secret`."""
    return secret.encode()


def turbo_key(secret_key_base: str) -> bytes:
    """The key that Turbo derives from Rails' `secret_key_base`."""
    return pbkdf2_hmac("sha256", secret_key_base.encode(), _TURBO_SALT, _TURBO_ROUNDS, _TURBO_BYTES)


class SignedStreams:
    """Verifies them: `base64(JSON(name))--hex(HMAC-SHA256(key, that base64 text))`.

    Such a name grants one channel to anyone who has it, and never expires: it names no subject.

    Args:
        keys: any of them may have signed.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = tuple(keys)

    @staticmethod
    def is_one(token: str) -> bool:
        """Whether it looks like one: no JWT has this in it, and two dots."""
        return _SEPARATOR in token and token.count(".") != 2

    def grant(self, token: str) -> Grant:
        """What it allows.

        Raises:
            Unauthorized: none of the keys has signed it, or it is none.
        """
        text, separator, signature = token.partition(_SEPARATOR)
        if not separator or _SEPARATOR in signature or not token.isascii():
            raise Unauthorized("The signed stream name is malformed.")
        # All of them, so that the time says nothing.
        signed = [
            hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), signature) for key in self._keys
        ]
        if not any(signed):
            raise Unauthorized("The signed stream name was signed with another secret.")
        try:
            name = json.loads(b64decode(text, validate=True))
        except (ValueError, RecursionError):
            name = None
        if not isinstance(name, str) or not name:
            raise Unauthorized("The signed stream name is no name.")
        return Grant(subscribe=Channels.exactly([name]))
