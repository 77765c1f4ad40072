"""From the settings to what verifies tokens."""

from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from gateway.auth.centrifugo import connection_grant, subscription_grant
from gateway.auth.key_set import RemoteKeys
from gateway.auth.keys import Key, pem_keys, secret_key
from gateway.auth.tokens import Reader, Tokens
from gateway.metrics import Metrics
from gateway.settings import Settings


def tokens_of(settings: Settings, metrics: Metrics) -> tuple[Tokens, Callable[[], Coroutine[Any, Any, None]] | None]:
    """What verifies tokens, and what has to run meanwhile.

    Raises:
        SettingsError: a key can't be used.
    """
    keys: list[Key] = []
    if settings.jwt_secret:
        keys.append(secret_key(settings.jwt_secret))
    if settings.jwt_public_key:
        keys += pem_keys(settings.jwt_public_key)
    remote = RemoteKeys(settings.jwks_url, lambda: tokens.forget(), metrics) if settings.jwks_url else None
    tokens = Tokens(
        keys,
        remote,
        settings.jwt_algorithms,
        settings.jwt_audience,
        settings.jwt_issuer,
        settings.jwt_leeway,
        _readers(settings),
    )
    return tokens, remote.run if remote is not None else None


def _readers(settings: Settings) -> list[Reader]:
    """Those for tokens made for something else, as far as the settings accept them."""
    readers: list[Reader] = []
    if settings.centrifugo_tokens != "none":
        readers.append(subscription_grant)
    if settings.centrifugo_tokens == "connection":
        readers.append(connection_grant)
    if settings.mercure_tokens:
        # It brings a matcher of its own, which others don't need.
        mercure = import_module("gateway.auth.mercure")
        readers += [mercure.access_grant] if "1.0" in settings.mercure_tokens else []
        readers += [mercure.early_grant] if "0.x" in settings.mercure_tokens else []
    return readers
