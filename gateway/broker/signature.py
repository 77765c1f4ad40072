"""Signatures by which workers know the gateway's own messages from what anybody may publish.

What moves a worker's clock (ticks, the numbers of durable messages) and what workers send each other is signed with a
secret that all workers on one Redis share. broker/library.lua signs the same way; Lua has nothing but SHA-1 in Redis.
"""

from collections.abc import Callable
from hashlib import sha1
from hmac import compare_digest

LENGTH = 20
"""Hexadecimal digits. Cut off, so that nobody can continue a hash whose text is known (length extension)."""


class Signer:
    """Signs, and tells what is signed.

    Attributes:
        secret: None until it is known; empty if this Redis can't sign (fakeredis has no redis.sha1hex).
        on_change: called when another secret is in force than before.
        on_doubt: called when something isn't signed with it: perhaps another worker has been given a new one.
    """

    def __init__(self) -> None:
        self.secret: bytes | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.on_doubt: Callable[[], None] = lambda: None

    def adopt(self, secret: bytes) -> None:
        """Use this secret from now on."""
        before, self.secret = self.secret, secret
        if before is not None and before != secret:
            self.on_change()

    def sign(self, text: bytes) -> bytes:
        """The signature; empty if this Redis can't sign."""
        secret = self.secret
        if not secret:
            return b""
        inner = sha1(secret + text, usedforsecurity=False).hexdigest().encode()
        return sha1(secret + inner, usedforsecurity=False).hexdigest()[:LENGTH].encode()

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether that is its signature."""
        if compare_digest(self.sign(text), signature):
            return True
        self.on_doubt()
        return False
