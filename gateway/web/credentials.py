"""Who a request is from, as it says itself."""

import re
from collections.abc import Iterable

from starlette.types import Scope

from gateway.auth.authority import has_tokens
from gateway.auth.credentials import Credentials
from gateway.auth.errors import Unauthorized
from gateway.settings import Settings
from gateway.web.origins import Origins, is_own
from gateway.web.problem import Problem
from gateway.web.stream_request import query_pairs

MAX_TOKENS = 100
"""In one request: as many as a stream may have channels, because some tokens are for one channel each."""
_CLEAN = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HINTS = (b"token", b"authorization", b"%")
"""Something of this is in every query with a token."""
# Fetch metadata (W3C), Sec-Fetch-Site: who made the browser send the request.
_OWN_PAGES = ("", "same-origin", "none")


class ReadCredentials:
    """Finds the token of a request: in the header, in the query where that is allowed, or in the cookie.

    Args:
        settings: where it may be.
        origins: whose pages may use cookies. A browser sends them for pages of any site.
    """

    def __init__(self, settings: Settings, origins: Origins) -> None:
        self._has_tokens = has_tokens(settings)
        self._has_backend = bool(settings.auth_url)
        self._cookies = [settings.token_cookie] if settings.token_cookie else []
        self._cookies += ["__Secure-mercure_access_token"] if "1.0" in settings.mercure_tokens else []
        self._cookies += ["mercureAuthorization"] if "0.x" in settings.mercure_tokens else []
        self._parameters = ("token", *(["authorization"] if "0.x" in settings.mercure_tokens else []))
        self._query_tokens = settings.query_tokens
        self._origins = origins

    def of(self, scope: Scope, more: tuple[str, ...] = ()) -> Credentials:
        """What there is; of the places with tokens, the first in that order counts.

        Args:
            scope: the request.
            more: tokens in its body.

        Raises:
            Unauthorized: there is a token where none is accepted.
            Problem: 403, a cookie came from a page that may not use it; 400, the query is malformed.
        """
        headers = scope["headers"]
        authorization, cookie = _joined(headers, b"authorization"), _joined(headers, b"cookie", "; ")
        scheme, _, rest = authorization.partition(" ")
        tokens: tuple[str, ...] = (rest.strip(), *more) if scheme.lower() == "bearer" else more
        is_ambient = False  # what a browser sends by itself
        if not tokens and self._has_tokens:
            tokens = self._in_query(scope["query_string"])
            if not tokens:
                tokens = _in_cookies(cookie, self._cookies)
                is_ambient = bool(tokens)
        origin = _joined(headers, b"origin")
        if self._has_backend and not all(_CLEAN.fullmatch(value) for value in (cookie, authorization, origin)):
            raise Problem(400, "The header Cookie, Authorization or Origin has a control character in it.")
        if is_ambient or (self._has_backend and not tokens and (cookie or authorization)):
            self._check_site(headers)
        if len(tokens) > MAX_TOKENS:
            raise Problem(400, f"The request has {len(tokens)} tokens; at most {MAX_TOKENS} are possible.")
        return Credentials(tokens, cookie, authorization, origin)

    def _in_query(self, query_string: bytes) -> tuple[str, ...]:
        if not any(each in query_string for each in _HINTS):
            return ()
        tokens = tuple([value for name, value in query_pairs(query_string) if name in self._parameters])
        if tokens and not self._query_tokens:
            raise Unauthorized(
                "Tokens in the query are not accepted here (setting query_tokens); send it in the header "
                f"Authorization{f', or in the cookie {self._cookies[0]}' if self._cookies else ''}."
            )
        return tokens

    def _check_site(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a cookie that was sent for a page of another site (cross-site request forgery)."""
        origin = _joined(headers, b"origin")
        if origin:
            if not is_own(origin, _joined(headers, b"host")) and not self._origins.allows_cookies(origin):
                raise Problem(
                    403,
                    f"Pages from {origin} may not use cookies here (settings cors_origins and cors_credentials).",
                )
        elif _joined(headers, b"sec-fetch-site") not in _OWN_PAGES:
            raise Problem(403, "Pages of other sites may not use cookies here.")


def _joined(headers: Iterable[tuple[bytes, bytes]], name: bytes, by: str = ", ") -> str:
    # What surrounds a value doesn't belong to it (RFC 9110, 5.5).
    return by.join([value.decode("latin-1").strip(" \t") for each, value in headers if each == name])


def _in_cookies(header: str, names: Iterable[str]) -> tuple[str, ...]:
    """The value of the first of these cookies that there is (RFC 6265, 5.4).

    Of several with the same name it is the first, which has the longest path.
    """
    cookies: dict[str, str] = {}
    for pair in header.split(";") if header else ():
        key, separator, value = pair.partition("=")
        if separator:
            cookies.setdefault(key.strip(), value.strip().strip('"'))
    return next(((cookies[name],) for name in names if name in cookies), ())
