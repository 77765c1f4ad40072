"""What somebody may do, wherever that is said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.auth.channels import NONE, Channels
from gateway.auth.errors import Unauthorized
from gateway.memory.names import has_glob_signs

_SUBJECT = "{sub}"
_SEPARATORS = ".:/"
MAX_GLOBS = 1000
"""In one grant. Each is compared with each channel that is asked for."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do.

    Attributes:
        sub: who; None if the grant names nobody.
        subscribe: channels whose events they may read.
        publish: channels they may publish on.
        presence: channels of which they may see who is there.
        admin: whether they may end the streams of others.
        expires_at: until when, in seconds since 1970; None: forever.
        issued_at: when it was given, likewise; None: that isn't known.
        asked_at: when the backend was asked for it, by this worker's clock; None: it wasn't.
    """

    sub: str | None = None
    subscribe: Channels = NONE
    publish: Channels = NONE
    presence: Channels = NONE
    admin: bool = False
    expires_at: float | None = None
    issued_at: float | None = None
    asked_at: float | None = None


def grant_of(
    claim: object,
    sub: str | None,
    expires_at: float | None,
    issued_at: float | None,
    *,
    where: str,
    substitute: bool = True,
) -> Grant:
    """The grant that a JSON object describes: `{subscribe, publish, presence, admin}`.

    Other members are ignored, so that a later version's can stand beside them.

    Args:
        claim: the object.
        sub: the subject, for `{sub}` in its globs.
        expires_at: seconds since 1970.
        issued_at: likewise.
        where: what the object is called in errors.
        substitute: whether `{sub}` stands for the subject.

    Raises:
        Unauthorized: it is no such object.
    """
    if not isinstance(claim, dict):
        raise Unauthorized(f'{where} must be an object such as {{"subscribe": ["news"]}}')
    admin = claim.get("admin", False)
    if not isinstance(admin, bool):
        raise Unauthorized(f"{where}.admin must be true or false")
    _check_unicode(sub or "", "The subject")
    named = {name: _globs(claim, name, where) for name in ("subscribe", "publish", "presence")}
    if sum(map(len, named.values())) > MAX_GLOBS:
        raise Unauthorized(f"{where} has more than {MAX_GLOBS} entries")
    if substitute:
        named = {
            name: [each for glob in globs if (each := _with_subject(glob, sub))] for name, globs in named.items()
        }
    subscribe, publish, presence = map(Channels, named.values())
    return Grant(sub, subscribe, publish, presence, admin, expires_at, issued_at)


def seconds(value: object) -> float | None:
    """A NumericDate (RFC 7519, 2); None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def together(grants: Sequence[Grant]) -> Grant:
    """What several grants allow that one request brings; it ends with the first of them.

    Raises:
        Unauthorized: they are for different subjects.
    """
    if len(grants) == 1:
        return grants[0]
    subjects = {grant.sub for grant in grants if grant.sub is not None}
    if len(subjects) > 1:
        raise Unauthorized("The tokens are for different subjects.")
    issued = [grant.issued_at for grant in grants]
    return Grant(
        next(iter(subjects), None),
        Channels.all_of([grant.subscribe for grant in grants]),
        Channels.all_of([grant.publish for grant in grants]),
        Channels.all_of([grant.presence for grant in grants]),
        all(grant.admin for grant in grants),
        min((grant.expires_at for grant in grants if grant.expires_at is not None), default=None),
        None if None in issued else min(each for each in issued if each is not None),
    )


def _globs(claim: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = claim.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Unauthorized(f"{where}.{name} must be an array of strings")
    _check_unicode("".join(value), f"{where}.{name}")
    return value


def _check_unicode(text: str, where: str) -> None:
    """Refuse half a surrogate pair: JSON can say it ("\\ud800"), and nothing that has to be compared with it can.

    Raises:
        Unauthorized: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unauthorized(f"{where} is not valid Unicode") from None


def _with_subject(glob: str, sub: str | None) -> str | None:
    """The glob with the subject in it; None if this subject would make more of it than was meant.

    Somebody called `*` must not be everybody, and somebody called `1.admin` must not get what is below `user.1.`.
    """
    if _SUBJECT not in glob:
        return glob
    if not sub or has_glob_signs(sub) or "[" in glob:  # in a class, it would be any of its characters
        return None
    literal = glob.replace(_SUBJECT, "")
    if any(separator in sub and separator in literal for separator in _SEPARATORS):
        return None
    return glob.replace(_SUBJECT, sub)
