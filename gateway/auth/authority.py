"""Who may do what, decided for each request."""

from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.auth.channels import Channels
from gateway.auth.credentials import Credentials
from gateway.auth.errors import Forbidden, Unauthorized
from gateway.auth.grant import Grant, together
from gateway.auth.signed_streams import SignedStreams, anycable_key, turbo_key
from gateway.metrics import Metrics
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.auth.backend import Backend
    from gateway.auth.tokens import Tokens

_NOBODY = Grant()


class Authority:
    """Decides; made only where something is configured (`authority_of`), else everything is public.

    Args:
        tokens: verifies tokens; None: there are none.
        signed: verifies signed stream names; None: there are none.
        backend: is asked about everybody else; None: there is none.
        public: channels that need no grant.
        metrics: where refusals are counted.
        background: what has to run meanwhile.

    Attributes:
        is_revoked: whether a grant of a subject, given at some time, doesn't count any more.
    """

    def __init__(
        self,
        tokens: "Tokens | None",
        signed: SignedStreams | None,
        backend: "Backend | None",
        public: Channels,
        metrics: Metrics,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._tokens = tokens
        self._signed = signed
        self._backend = backend
        self._public = public
        self._metrics = metrics
        self.background = background
        self.is_revoked: Callable[[str | None, float | None], bool] = lambda *_: False

    async def subscriber(
        self, credentials: Credentials, channels: tuple[str, ...], patterns: tuple[str, ...], address: str
    ) -> Grant:
        """The grant of somebody who asks for a stream of these.

        Args:
            address: of the client, for the backend.

        Raises:
            Unauthorized: without valid credentials they can't have it.
            Forbidden: with these they can't.
            CannotTell: that can't be decided just now.
        """
        is_closed = not all(map(self._public.has, channels)) or not all(map(self._public.has_all_of, patterns))
        grant = await self._from_token(credentials)
        # Cookies may be anything, but a token is meant for this: if it is bad, its sender must not become nobody.
        if grant is None and (is_closed or credentials.tokens):
            grant = await self._from_backend("subscribe", credentials, channels, patterns, address)
        self._check_subscribe(grant, channels, patterns)
        return _NOBODY if grant is None else grant

    async def ticket_owner(
        self, credentials: Credentials, channels: tuple[str, ...], patterns: tuple[str, ...], address: str
    ) -> Grant:
        """The grant of somebody who wants a ticket for a stream of these; it takes one, for public channels, too.

        Raises:
            Unauthorized, Forbidden, CannotTell: as `subscriber`.
        """
        grant = await self._from_token(credentials)
        if grant is None:
            grant = await self._from_backend("subscribe", credentials, channels, patterns, address)
        if grant is None:
            self._refuse(None, "may not have a ticket")
        self._check_subscribe(grant, channels, patterns)
        return grant

    async def publisher(self, credentials: Credentials, channel: str, address: str) -> Grant:
        """The grant of somebody who publishes over HTTP, which always needs one.

        Raises:
            Unauthorized, Forbidden, CannotTell: as `subscriber`.
        """
        grant = await self._from_token(credentials)
        if grant is None:
            grant = await self._from_backend("publish", credentials, (channel,), (), address)
        if grant is None or not grant.publish.has(channel):
            self._refuse(grant, f"may not publish on channel {channel!r}")
        return grant

    async def admin(self, credentials: Credentials, address: str) -> Grant:
        """The grant of somebody who may end the streams of others.

        Raises:
            Unauthorized, Forbidden, CannotTell: as `subscriber`.
        """
        grant = await self._from_token(credentials)
        if grant is None:
            grant = await self._from_backend("admin", credentials, (), (), address)
        if grant is None or not grant.admin:
            self._refuse(grant, "may not do this: it takes `admin`")
        return grant

    def forget(self) -> None:
        """A grant was revoked: the backend is asked again about everybody."""
        if self._backend is not None:
            self._backend.forget()

    async def close(self) -> None:
        """Release what is held for connections."""
        if self._backend is not None:
            await self._backend.close()

    def _check_subscribe(self, grant: Grant | None, channels: tuple[str, ...], patterns: tuple[str, ...]) -> None:
        given = _NOBODY if grant is None else grant
        for name in channels:
            if not self._public.has(name) and not given.subscribe.has(name):
                self._refuse(grant, f"may not subscribe to channel {name!r}")
        for pattern in patterns:
            if not self._public.has_all_of(pattern) and not given.subscribe.has_all_of(pattern):
                self._refuse(grant, f"may not subscribe to pattern {pattern!r}")

    async def _from_token(self, credentials: Credentials) -> Grant | None:
        """What a token allows; None: there is none. A bad one is an error, also where none is needed.

        Who came with a token that has expired would otherwise be somebody unknown from then on, and wouldn't notice.
        """
        if not credentials.tokens or not (self._tokens or self._signed):
            return None
        first = credentials.tokens[0]
        is_signed = self._signed is not None and self._signed.is_one(first)
        if self._backend is not None and credentials.authorization and first.count(".") != 2 and not is_signed:
            return None  # not ours, but perhaps the backend's
        try:
            return together([await self._from_one(token) for token in credentials.tokens])
        except Unauthorized:
            self._metrics.unauthorized["bad_token"] += 1
            raise

    async def _from_one(self, token: str) -> Grant:
        if self._signed is not None and (self._tokens is None or self._signed.is_one(token)):
            return self._signed.grant(token)
        assert self._tokens is not None
        grant = await self._tokens.grant(token)
        if self.is_revoked(grant.sub, grant.issued_at):
            raise Unauthorized("The token has been revoked.")
        return grant

    async def _from_backend(
        self,
        action: str,
        credentials: Credentials,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        address: str,
    ) -> Grant | None:
        """What the backend allows; None: there is none to be asked."""
        if self._backend is None:
            return None
        try:
            return await self._backend.grant(action, credentials, channels, patterns, address)
        except (Unauthorized, Forbidden):
            self._metrics.unauthorized["backend"] += 1
            raise

    def _refuse(self, grant: Grant | None, what: str) -> NoReturn:
        if grant is None:
            self._metrics.unauthorized["no_token"] += 1
            raise Unauthorized(f"Without a token you {what}.")
        self._metrics.unauthorized["forbidden"] += 1
        raise Forbidden(f"You {what}.")


def is_configured(settings: Settings) -> bool:
    """Whether anything says who may do what; else everything is public."""
    return has_tokens(settings) or bool(settings.auth_url)


def has_tokens(settings: Settings) -> bool:
    """Whether there are tokens, of any kind."""
    return has_keys(settings) or bool(settings.anycable_secret or settings.turbo_secret_key_base)


def has_keys(settings: Settings) -> bool:
    """Whether there are keys for JWTs; only these can allow publishing."""
    return bool(settings.jwt_secret or settings.jwt_public_key or settings.jwks_url)


def authority_of(settings: Settings, metrics: Metrics) -> Authority | None:
    """The authority that the settings describe; None: everything is public.

    Raises:
        SettingsError: a key can't be used.
    """
    if not is_configured(settings):
        return None
    # Imported when it is needed: PyJWT with cryptography, and httpx, take 30 MB in each worker.
    tokens = background = backend = None
    if has_keys(settings):
        tokens, background = import_module("gateway.auth.token_settings").tokens_of(settings, metrics)
    if settings.auth_url:
        backend = import_module("gateway.auth.backend").Backend(settings, metrics)
    keys = [anycable_key(settings.anycable_secret)] if settings.anycable_secret else []
    if settings.turbo_secret_key_base:
        keys.append(turbo_key(settings.turbo_secret_key_base))
    signed = SignedStreams(keys) if keys else None
    return Authority(tokens, signed, backend, Channels(settings.public_channels), metrics, background)
