"""The secret that all workers on a Redis share, and the notice that it is another from here on.

The notice is published in the same step in which the secret is replaced, so on every connection it stands between
what was signed with the former one and what is signed with the new one.
"""

from hmac import compare_digest
from typing import NamedTuple

from gateway.broker.signature import Signer, signature_of

NOTICES = b"gateway.secret"
"""Channel of the notices: one for all databases and prefixes, as they share the secret."""


class Secret(NamedTuple):
    """A secret as Redis holds it.

    Attributes:
        text: empty if this Redis can't sign, or holds none yet.
        serial: counts the secrets that this Redis has had, so that no notice counts twice.
    """

    text: bytes = b""
    serial: int = 0


class Notice(NamedTuple):
    """That there is a new secret, which only Redis shows.

    Attributes:
        serial: of the new secret.
        proof: by which it is known.
    """

    serial: int
    proof: bytes

    def is_of(self, secret: Secret) -> bool:
        """Whether it is this secret that was announced."""
        return secret.serial == self.serial and compare_digest(_proof(secret), self.proof)


def dump_notice(former: bytes, secret: Secret) -> bytes:
    """The notice of a new secret, signed with the former one."""
    said = b"%d %b" % (secret.serial, _proof(secret))
    return b"%b %b" % (signature_of(former, NOTICES, said), said)


def load_notice(signer: Signer, payload: bytes) -> Notice | None:
    """The notice; None if it isn't signed with the secret in use."""
    signature, _, said = payload.partition(b" ")
    if not signer.secret or not signer.has_signed(said, signature, NOTICES):
        return None
    serial, _, proof = said.partition(b" ")
    return Notice(int(serial), proof)


def _proof(secret: Secret) -> bytes:
    return signature_of(secret.text, NOTICES, b"%d" % secret.serial)
