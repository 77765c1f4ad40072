"""What docs/auth.md, and the standards it names, say of a token, written down once more: with the standard library's
JSON, and without any of the gateway's code.
"""

import base64
import binascii
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fuzz.contract import depth
from fuzz.token_keys import ALGORITHMS, verifies

PUBLIC = "open."
"""Channels that begin like this are for everybody."""
_OWN = "gateway."
_SEGMENT = re.compile(r"[A-Za-z0-9_-]*")
_KINDS = ("subscribe", "publish", "presence")
_SIGNS = set("*?[]^\\")
_MOST_GLOBS = 1000
_FAR = 1e15
"""Seconds that are a time for anybody."""
_DEPTH = 50
"""So many containers within each other every JSON parser takes."""


class Worth(NamedTuple):
    """What a token allows.

    Attributes:
        globs: by what they allow, with the subject in them.
        certain: whether it has to be accepted. Of what the documents don't speak, a gateway may say that it is bad;
            if it says that it is good, it may allow no more than this.
    """

    sub: str | None
    globs: Mapping[str, Sequence[str]]
    admin: bool
    certain: bool


class Doubt:
    """Whether anything was found of which the documents don't speak."""

    def __init__(self) -> None:
        self.any = False

    def unless(self, usual: bool) -> None:
        self.any = self.any or not usual


def worth(token: str) -> Worth | None:
    """What a token allows; None: it must not be accepted."""
    doubt = Doubt()
    parts = token.split(".")
    if len(parts) != 3:
        return None
    decoded = [_bytes(part, doubt) for part in parts]
    if None in decoded:
        return None
    header, claims = (_object(part, doubt) for part in decoded[:2])
    if header is None or claims is None or not _is_signed(header, token, decoded[2], doubt):
        return None
    if not _is_for_now(claims, doubt) or _is_for_others(claims, doubt):
        return None
    sub = claims.get("sub")
    doubt.unless(("sub" not in claims or isinstance(sub, str)) and _is_text(sub))
    doubt.unless(all(isinstance(claims.get(name, ""), str) for name in ("iss", "jti")))
    named = sub if isinstance(sub, str) and sub else None
    claim = claims.get("gateway", {})
    doubt.unless(isinstance(claim, dict))
    if not isinstance(claim, dict):
        claim = {}
    globs = {kind: _globs(claim, kind, named, doubt) for kind in _KINDS}
    doubt.unless(sum(len(claim[kind]) for kind in _KINDS if isinstance(claim.get(kind), list)) <= _MOST_GLOBS)
    doubt.unless(isinstance(claim.get("admin", False), bool))
    return Worth(sub if isinstance(sub, str) else None, globs, claim.get("admin") is True, not doubt.any)


def allows(worths: Sequence[Worth], kind: str, channel: str) -> bool:
    """Whether tokens allow together to subscribe to a channel, or to publish on it."""
    if channel.startswith(_OWN):
        return False
    return any(matches(glob.encode(), channel.encode()) for each in worths for glob in each.globs[kind])


def allows_pattern(worths: Sequence[Worth], pattern: str) -> bool:
    """Whether tokens allow together to subscribe to a pattern: it is named, or the beginning of its channels is."""
    if pattern.startswith(_OWN):
        return False
    for glob in [glob for each in worths for glob in each.globs["subscribe"]]:
        beginning = glob[:-1]
        if pattern == glob or (glob.endswith("*") and not _SIGNS & set(beginning) and pattern.startswith(beginning)):
            return True
    return False


def matches(glob: bytes, name: bytes) -> bool:
    """Whether Redis' glob matches a name, one character after the other as stringmatchlen does."""
    while glob:
        if glob[:1] == b"*":
            rest = glob.lstrip(b"*")
            return any(matches(rest, name[at:]) for at in range(len(name) + 1)) if rest else True
        if not name:
            return False
        if glob[:1] == b"[":
            is_in, glob = _class(glob[1:], name[0])
            if not is_in:
                return False
        else:
            if glob[:1] == b"\\" and len(glob) > 1:
                glob = glob[1:]
                is_same = glob[:1] == name[:1]
            else:
                is_same = glob[:1] in (b"?", name[:1])
            if not is_same:
                return False
            glob = glob[1:]
        name = name[1:]
    return not name


def _class(glob: bytes, char: int) -> tuple[bool, bytes]:
    """Whether a class has a character, and the glob behind it; it begins behind its bracket."""
    negated = glob[:1] == b"^"
    glob = glob[negated:]
    found = False
    while glob and glob[:1] != b"]":
        if glob[:1] == b"\\" and len(glob) > 1:
            found |= glob[1] == char
            glob = glob[2:]
        elif len(glob) > 2 and glob[1:2] == b"-":
            found |= min(glob[0], glob[2]) <= char <= max(glob[0], glob[2])
            glob = glob[3:]
        else:
            found |= glob[0] == char
            glob = glob[1:]
    return found != negated, glob[1:]


def _bytes(segment: str, doubt: Doubt) -> bytes | None:
    """What a part of a token says in base64url (RFC 7515, 2), which has no padding and nothing else in it."""
    bare = segment.rstrip("=")
    doubt.unless(bare == segment)
    if not _SEGMENT.fullmatch(bare):
        return None
    try:
        decoded = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        return None
    doubt.unless(base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == bare)
    return decoded


def _object(content: bytes | None, doubt: Doubt) -> dict[str, Any] | None:
    """A JSON object; of a name that stands twice, the last counts, or the token is bad (RFC 7515, 4; RFC 7519, 4)."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        doubt.unless(len({name for name, _ in pairs}) == len(pairs))
        return dict(pairs)

    def constant(text: str) -> float:
        doubt.unless(False)
        return float(text)

    content = content or b""
    try:
        value = json.loads(content, object_pairs_hook=members, parse_constant=constant)
    except (ValueError, RecursionError):
        return None
    doubt.unless(_is_utf8(content))
    doubt.unless(depth(value) <= _DEPTH)
    return value if isinstance(value, dict) else None


def _is_signed(header: Mapping[str, Any], token: str, signature: bytes | None, doubt: Doubt) -> bool:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        return False
    if "crit" in header and header["crit"] != ["b64"]:
        return False  # what has to be understood, nobody here understands (RFC 7515, 4.1.11)
    doubt.unless("crit" not in header and "b64" not in header)
    doubt.unless("kid" not in header or isinstance(header["kid"], str))
    return verifies(algorithm, token.rpartition(".")[0].encode(), signature or b"")


def _is_for_now(claims: Mapping[str, Any], doubt: Doubt) -> bool:
    times = {}
    for name in ("exp", "nbf", "iat"):
        if name not in claims:
            continue
        value = claims[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "iat":
            doubt.unless(is_number and abs(value) < _FAR)
        elif not is_number or value != value or value in (math.inf, -math.inf):
            return False
        else:
            doubt.unless(abs(value) < _FAR)
            times[name] = value
    now = time.time()
    return bool(times.get("nbf", now) <= now < times.get("exp", math.inf))


def _is_for_others(claims: Mapping[str, Any], doubt: Doubt) -> bool:
    doubt.unless("aud" not in claims)
    return bool(claims.get("aud"))  # what is empty names nobody


def _globs(claim: Mapping[str, Any], kind: str, sub: str | None, doubt: Doubt) -> list[str]:
    value = claim.get(kind, [])
    is_usual = isinstance(value, list) and all(isinstance(each, str) for each in value)
    doubt.unless(is_usual)
    found = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    doubt.unless(all(map(_is_text, found)))
    return [each for glob in found if _is_text(glob) and (each := _with_subject(glob, sub)) is not None]


def _with_subject(glob: str, sub: str | None) -> str | None:
    literal = glob.replace("{sub}", "")
    if literal == glob:
        return glob
    if sub is None or not _is_text(sub) or "[" in glob or _SIGNS & set(sub):
        return None
    if any(sign in sub and sign in literal for sign in ".:/"):
        return None
    return glob.replace("{sub}", sub)


def _is_text(value: object) -> bool:
    """Whether it can be written as UTF-8, if it is text at all."""
    return not isinstance(value, str) or not re.search(r"[\ud800-\udfff]", value)


def _is_utf8(content: bytes) -> bool:
    """Whether it is encoded as it should be (RFC 7519, 7.2). Who signs what is not, harms nobody."""
    try:
        return json.detect_encoding(content) == "utf-8" and bool(content.decode())
    except UnicodeDecodeError:
        return False
