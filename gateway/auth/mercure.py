"""Tokens made for Mercure hubs (setting `mercure_tokens`): of versions 0.x, and of 1.0 (read at v1.0.0-alpha.3)."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from urlpattern import URLPattern

from gateway.auth.channels import Channels
from gateway.auth.errors import Unauthorized
from gateway.auth.grant import MAX_GLOBS, Grant

_CLAIMS = ("mercure", "https://mercure.rocks/")
_DETAIL = "https://mercure.rocks/authorization-detail"
_ALL = "*"
_TYPES = ("at+jwt", "application/at+jwt")

# RFC 6570, 2.3 and 3.2. What a value may hold: in simple expansions only unreserved characters stand for themselves.
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_NAMES = re.compile(r"([+#./;?&]?)((?:[A-Za-z0-9_.]|%[0-9A-Fa-f]{2})+(?:,(?:[A-Za-z0-9_.]|%[0-9A-Fa-f]{2})+)*)")
_UNRESERVED = r"(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})*"
_ANY = r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
_OPERATORS = {
    "": ("", ",", _UNRESERVED),
    "+": ("", "", _ANY),
    "#": ("#", "", _ANY),
    ".": (".", ".", r"(?:[A-Za-z0-9\-_~]|%[0-9A-Fa-f]{2})*"),
    "/": ("/", "/", _UNRESERVED),
}
_MOST_EXPRESSIONS = 5


def early_grant(
    _: Mapping[str, Any], claims: Mapping[str, Any], expires_at: float | None, issued_at: float | None
) -> Grant | None:
    """What a token for a hub of version 0.x allows: `mercure: {subscribe: […], publish: […]}`. None: it is none.

    Its selectors are `*`, a topic, or a URI Template (RFC 6570); never a glob.
    """
    claim = next((claims[name] for name in _CLAIMS if name in claims), None)
    if claim is None:
        return None
    if not isinstance(claim, dict):
        raise Unauthorized("The token's claim mercure is no object.")
    subscribe, publish = (_selected(_texts(claim.get(name), name)) for name in ("subscribe", "publish"))
    return Grant(_subject(claims), subscribe, publish, expires_at=expires_at, issued_at=issued_at)


def access_grant(
    header: Mapping[str, Any], claims: Mapping[str, Any], expires_at: float | None, issued_at: float | None
) -> Grant | None:
    """What an access token for a hub of version 1.0 allows (`authorization_details`, RFC 9396). None: it is none.

    Unknown actions, and details of other types, are ignored; whatever else isn't understood makes the token useless.
    """
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        return None
    if expires_at is None:
        raise Unauthorized("The token has no exp.")
    details = claims.get("authorization_details", [])
    if not isinstance(details, list) or not all(isinstance(each, dict) for each in details):
        raise Unauthorized("The token's authorization_details are no array of objects.")
    named: dict[str, list[Channels]] = {"subscribe": [], "publish": []}
    for detail in details:
        if detail.get("type") != _DETAIL:
            continue
        topics = detail.get("topics")
        if not isinstance(topics, list) or len(topics) > MAX_GLOBS:
            raise Unauthorized("A detail of the token has no array of topics.")
        matched = [_matched(topic) for topic in topics]
        for action in _texts(detail.get("actions"), "actions"):
            if action in named:
                named[action] += matched
    subscribe, publish = (Channels.all_of(each) if each else Channels() for each in named.values())
    return Grant(_subject(claims), subscribe, publish, expires_at=expires_at, issued_at=issued_at)


def _subject(claims: Mapping[str, Any]) -> str | None:
    sub = claims.get("sub")
    return sub if isinstance(sub, str) else None


def _texts(value: object, name: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or len(value) > MAX_GLOBS:
        raise Unauthorized(f"The token's {name} is no array of strings.")
    return value


def _selected(selectors: list[str]) -> Channels:
    exact = Channels.exactly([each for each in selectors if each != _ALL])
    templates = [matcher for each in selectors if (matcher := template(each)) is not None]
    return Channels.all_of([exact, Channels.matching(templates), *([Channels([_ALL])] if _ALL in selectors else [])])


def _matched(topic: object) -> Channels:
    if not isinstance(topic, dict) or not isinstance(match := topic.get("match"), str):
        raise Unauthorized("A topic of the token has no match.")
    if match == _ALL:
        return Channels([_ALL])
    match_type = topic.get("match_type", "exact")
    if match_type == "exact":
        return Channels.exactly([match])
    if match_type != "urlpattern":
        raise Unauthorized("A topic of the token has a match_type that is not known.")
    try:
        pattern = URLPattern(match)
    except ValueError:
        raise Unauthorized("A topic of the token is no URL pattern.") from None
    return Channels.matching([lambda name: bool(pattern.test(name))])


def template(text: str) -> Callable[[str], bool] | None:
    """What matches the expansions of a URI Template; None: there is no expression in it, or an unknown one.

    Modifiers (`:3`, `*`) and the forms for queries (`;`, `?`, `&`) aren't known, so such a template matches nothing.
    """
    parts: list[str] = []
    at = 0
    for expression in _EXPRESSION.finditer(text):
        names = _NAMES.fullmatch(expression[1])
        if names is None or names[1] not in _OPERATORS or len(parts) >= 2 * _MOST_EXPRESSIONS:
            return None
        first, separator, value = _OPERATORS[names[1]]
        count = names[2].count(",")
        more = f"(?:{re.escape(separator)}{value}){{0,{count}}}" if separator and count else ""
        parts += [re.escape(text[at : expression.start()]), f"(?:{re.escape(first)}{value}{more})?"]
        at = expression.end()
    if not parts:
        return None
    pattern = re.compile("".join(parts) + re.escape(text[at:]))
    return lambda name: pattern.fullmatch(name) is not None
