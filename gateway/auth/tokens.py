"""JSON Web Tokens, and what they allow."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jwt
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from gateway.auth.errors import Unauthorized
from gateway.auth.grant import Grant, grant_of, seconds
from gateway.auth.keys import Key, matching
from gateway.pace import Pace

CLAIM = "gateway"

Reader: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, Any], float | None, float | None], Grant | None]
"""Takes header, claims, until when the token is accepted, and when it was made; None: it is of another kind."""

_MAX_REMEMBERED = 10_000
_MAX_REMEMBERED_BYTES = 2048
_MAX_TRIED = 10


class KeySet(Protocol):
    """Keys that are kept elsewhere, and change."""

    async def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Those for a token with such a header; asks for them if there are none.

        Raises:
            CannotTell: none is known yet, and they can't be had.
        """


class _Verified(NamedTuple):
    """A token that was accepted.

    Attributes:
        grant: what it allows.
        accepted_from: seconds since 1970.
        accepted_until: likewise. The grant may last longer, or not as long.
    """

    grant: Grant
    accepted_from: float
    accepted_until: float


class Tokens:
    """Verifies tokens.

    Args:
        keys: fixed ones.
        key_set: others.
        algorithms: the only ones that are accepted; empty: all that the keys allow.
        audience: one of these has to be in `aud`; empty: a token with `aud` is for somebody else.
        issuer: one of these has to be `iss`; empty: any.
        leeway: seconds by which clocks may differ.
        readers: say what tokens allow that were made for something else; the first that says anything counts.
        now: seconds since 1970.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        key_set: KeySet | None = None,
        algorithms: Sequence[str] = (),
        audience: Sequence[str] = (),
        issuer: Sequence[str] = (),
        leeway: float = 0.0,
        readers: Sequence[Reader] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = tuple(keys)
        self._key_set = key_set
        self._algorithms = frozenset(algorithms)
        self._audience = tuple(audience) or None
        self._issuer = tuple(issuer) or None
        self._leeway = leeway
        self._readers = tuple(readers)
        self._now = now
        # Clients come back with the same token, all at once; a signature takes up to a millisecond to verify.
        self._remembered: OrderedDict[str, _Verified] = OrderedDict()
        self._pace = Pace()

    async def grant(self, token: str) -> Grant:
        """What a token allows.

        Raises:
            Unauthorized: it is no token, not valid, or of somebody that nobody here trusts.
            CannotTell: the keys can't be had just now.
        """
        if (grant := self._known(token)) is not None:
            return grant
        await self._pace.turn()
        if (grant := self._known(token)) is not None:  # somebody else has brought the same one
            return grant
        verified = self._granted(*await self._claims(token))
        if len(token) <= _MAX_REMEMBERED_BYTES:
            self._remembered[token] = verified
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return verified.grant

    def _known(self, token: str) -> Grant | None:
        """What a token allows that was accepted before, and is still valid."""
        remembered = self._remembered.get(token)
        if remembered is None:
            return None
        if remembered.accepted_from <= self._now() < remembered.accepted_until:
            return remembered.grant
        del self._remembered[token]
        return None

    def forget(self) -> None:
        """Keys have changed: what was verified with the former ones is verified again."""
        self._remembered.clear()

    async def _claims(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The verified header and claims."""
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, RecursionError) as error:
            raise Unauthorized(f"The token is no JWT: {error}.") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or (kid is not None and not isinstance(kid, str)):
            raise Unauthorized("The token's header names no algorithm.")
        keys: Sequence[Key] = ()
        if not self._algorithms or algorithm in self._algorithms:
            keys = matching(self._keys, algorithm, kid)
            if not keys and self._key_set is not None:
                keys = await self._key_set.find(algorithm, kid)
        if not keys:
            named = "" if kid is None else f" and kid {kid[:64]!r}"
            raise Unauthorized(f"No key here verifies a token with alg {algorithm[:16]!r}{named}.")
        for key in keys[:_MAX_TRIED]:
            try:
                return header, self._verified(token, key, algorithm)
            except InvalidSignatureError:
                continue
            except (PyJWTError, ValueError, OverflowError, TypeError, RecursionError) as error:
                raise Unauthorized(_explain(error)) from None
        raise Unauthorized("The token's signature is wrong: it was signed with another key.")

    def _verified(self, token: str, key: Key, algorithm: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            # What the clocks say is compared in _granted: PyJWT takes text for a number, and drops fractions.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": self._audience is not None,
            },
        )
        return claims

    def _granted(self, header: dict[str, Any], claims: dict[str, Any]) -> _Verified:
        now = self._now()
        expires_at, issued_at, not_before = (_time(claims, name) for name in ("exp", "iat", "nbf"))
        if expires_at is not None:
            expires_at += self._leeway
        earliest = -math.inf if not_before is None else not_before - self._leeway
        if earliest > now:
            raise Unauthorized("The token is not valid yet (nbf).")
        if expires_at is not None and expires_at <= now:
            raise Unauthorized("The token has expired.")
        grant = self._read(header, claims, expires_at, issued_at)
        if grant.expires_at is not None and grant.expires_at <= now:
            raise Unauthorized("What the token allows has expired.")
        return _Verified(grant, earliest, math.inf if expires_at is None else expires_at)

    def _read(
        self, header: dict[str, Any], claims: dict[str, Any], expires_at: float | None, issued_at: float | None
    ) -> Grant:
        if CLAIM not in claims:
            for read in self._readers:
                if (grant := read(header, claims, expires_at, issued_at)) is not None:
                    return grant
        if self._audience is None and "aud" in claims:
            raise Unauthorized(_explain(InvalidAudienceError()))
        return grant_of(claims.get(CLAIM, {}), claims.get("sub"), expires_at, issued_at, where=f"The claim {CLAIM}")


def _time(claims: dict[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    if (value := seconds(claims[name])) is None:
        raise Unauthorized(f"The token's {name} is no number of seconds.")
    return value


def _explain(error: Exception) -> str:
    if isinstance(error, InvalidAudienceError):
        return "The token is for somebody else: its aud is none of the setting jwt_audience."
    if isinstance(error, InvalidIssuerError):
        return "The token's iss is none of the setting jwt_issuer."
    if isinstance(error, MissingRequiredClaimError):
        return f"The token has no {error.claim}."
    return f"The token is not valid: {str(error).rstrip('.')[:200]}."
