"""Who may do what, decided for each request."""

from collections.abc import Callable, Coroutine, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateway.auth.channels import Channels
from gateway.auth.credentials import Credentials
from gateway.auth.errors import Forbidden, Unauthorized
from gateway.auth.grant import Grant
from gateway.metrics import Metrics
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.auth.tokens import Tokens

_NOBODY = Grant()


class Authority:
    """Decides; made only where something is configured (`authority_of`), else everything is public.

    Args:
        tokens: verifies tokens.
        public: channels that need no grant.
        metrics: where refusals are counted.
        background: what has to run meanwhile.
    """

    def __init__(
        self,
        tokens: "Tokens",
        public: Channels,
        metrics: Metrics,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._tokens = tokens
        self._public = public
        self._metrics = metrics
        self.background = background

    async def subscriber(self, credentials: Credentials, channels: Iterable[str], patterns: Iterable[str]) -> Grant:
        """The grant of somebody who asks for a stream of these.

        Raises:
            Unauthorized: without valid credentials they can't have it.
            Forbidden: with these they can't.
            CannotTell: that can't be decided just now.
        """
        grant = await self._grant(credentials)
        for name in channels:
            if not self._public.has(name) and not grant.subscribe.has(name):
                self._refuse(credentials, f"may not subscribe to channel {name!r}")
        for pattern in patterns:
            if not self._public.has_all_of(pattern) and not grant.subscribe.has_all_of(pattern):
                self._refuse(credentials, f"may not subscribe to pattern {pattern!r}")
        return grant

    async def publisher(self, credentials: Credentials, channel: str) -> Grant:
        """The grant of somebody who publishes over HTTP, which always needs one.

        Raises:
            Unauthorized, Forbidden, CannotTell: as `subscriber`.
        """
        grant = await self._grant(credentials)
        if not grant.publish.has(channel):
            self._refuse(credentials, f"may not publish on channel {channel!r}")
        return grant

    async def _grant(self, credentials: Credentials) -> Grant:
        """What the credentials allow; bad ones are an error, also where none are needed.

        Who came with a token that has expired would otherwise be somebody unknown from then on, and wouldn't notice.
        """
        if credentials.token is None:
            return _NOBODY
        try:
            return await self._tokens.grant(credentials.token)
        except Unauthorized:
            self._metrics.unauthorized["bad_token"] += 1
            raise

    def _refuse(self, credentials: Credentials, what: str) -> None:
        if credentials.token is None:
            self._metrics.unauthorized["no_token"] += 1
            raise Unauthorized(f"Without a token you {what}.")
        self._metrics.unauthorized["forbidden"] += 1
        raise Forbidden(f"This token {what}.")


def is_configured(settings: Settings) -> bool:
    """Whether anything says who may do what; else everything is public."""
    return bool(settings.jwt_secret or settings.jwt_public_key or settings.jwks_url)


def authority_of(settings: Settings, metrics: Metrics) -> Authority | None:
    """The authority that the settings describe; None: everything is public.

    Raises:
        SettingsError: a key can't be used.
    """
    if not is_configured(settings):
        return None
    # Imported when it is needed: PyJWT with cryptography and httpx take 30 MB, in each worker.
    tokens, background = import_module("gateway.auth.token_settings").tokens_of(settings, metrics)
    return Authority(tokens, Channels(settings.public_channels), metrics, background)
