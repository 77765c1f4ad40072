"""Signatures by which workers know the gateway's own messages from what anybody may publish.

What moves a worker's clock (ticks, the numbers of durable messages) and what workers send each other is signed with a
secret that all workers on one Redis share. A signature counts in one place only: on the channel it was made for, or
in the database. broker/library.lua signs the same way; Lua has nothing but SHA-1 in Redis.
"""

import math
import time
from collections.abc import Callable
from hashlib import sha1
from hmac import compare_digest

LENGTH = 20
"""Hexadecimal digits. Cut off, so that nobody can continue a hash whose text is known (length extension)."""
_LATE_SECONDS = 10.0
"""For so long after a change, messages between workers may still come that were sent before their senders knew."""


def signature_of(secret: bytes, where: bytes, text: bytes) -> bytes:
    """What a secret makes of a text that counts in one place; empty if the secret is: this Redis can't sign."""
    if not secret:
        return b""
    inner = sha1(b"%b%b\0%b" % (secret, where, text), usedforsecurity=False).hexdigest().encode()
    return sha1(secret + inner, usedforsecurity=False).hexdigest()[:LENGTH].encode()


class Signer:
    """Signs, and tells what is signed.

    Args:
        now: seconds, monotonic.

    Attributes:
        secret: None until it is known; empty if this Redis can't sign (fakeredis has no redis.sha1hex).
        on_doubt: called when something isn't signed with it: perhaps another worker has been given a new one.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.secret: bytes | None = None
        self.on_doubt: Callable[[], None] = lambda: None
        self._now = now
        self._former = b""
        self._former_until = -math.inf

    def adopt(self, secret: bytes) -> None:
        """Use this secret from now on."""
        if self.secret and self.secret != secret:
            self._former = self.secret
            self._former_until = self._now() + _LATE_SECONDS
        self.secret = secret

    def sign(self, where: bytes, text: bytes) -> bytes:
        """The signature; empty if this Redis can't sign."""
        return signature_of(self.secret or b"", where, text)

    def has_signed(self, text: bytes, signature: bytes, *where: bytes) -> bool:
        """Whether that is the signature of a text in one of these places."""
        for place in where:
            if compare_digest(self.sign(place, text), signature):
                return True
        self.on_doubt()
        return False

    def has_signed_lately(self, text: bytes, signature: bytes, where: bytes) -> bool:
        """As `has_signed`; just after a change also with the former secret. Not for what is counted: another worker
        may not know that one."""
        if self._now() < self._former_until and compare_digest(signature_of(self._former, where, text), signature):
            return True
        return self.has_signed(text, signature, where)
