"""Tokens made for Centrifugo (setting `centrifugo_tokens`).

Read at https://centrifugal.dev/docs/server/authentication and …/channel_token_auth, Centrifugo 6.
"""

from collections.abc import Mapping
from typing import Any

from gateway.auth.channels import Channels
from gateway.auth.errors import Unauthorized
from gateway.auth.grant import MAX_GLOBS, Grant


def subscription_grant(
    _: Mapping[str, Any], claims: Mapping[str, Any], expires_at: float | None, issued_at: float | None
) -> Grant | None:
    """What a subscription token allows: one channel, which is no glob. None: it is no such token.

    Args:
        claims: verified.
        expires_at: until when the token is accepted. The subscription lasts as long, unless `expire_at` says
            otherwise; 0 means forever.
        issued_at: when the token was made.
    """
    channel = claims.get("channel")
    if channel is None:
        return None
    if not isinstance(channel, str) or not channel:
        raise Unauthorized("The token's channel is no name.")
    expire_at = claims.get("expire_at")
    if expire_at is not None:
        if isinstance(expire_at, bool) or not isinstance(expire_at, int):
            raise Unauthorized("The token's expire_at is no number of seconds.")
        expires_at = float(expire_at) or None
    return Grant(claims.get("sub"), Channels.exactly([channel]), expires_at=expires_at, issued_at=issued_at)


def connection_grant(
    _: Mapping[str, Any], claims: Mapping[str, Any], expires_at: float | None, issued_at: float | None
) -> Grant | None:
    """What a connection token allows if its `channels` and `subs` are taken for permissions. None: it has neither.

    To Centrifugo they are subscriptions that the server makes, so this is for those who make their tokens that way.
    """
    channels, subs = claims.get("channels"), claims.get("subs")
    if channels is None and subs is None:
        return None
    names = list(subs if subs is not None else channels or ()) if isinstance(subs or {}, dict) else None
    if names is None or not isinstance(channels or [], list) or not all(isinstance(name, str) for name in names):
        raise Unauthorized("The token's channels or subs are no names.")
    if len(names) > MAX_GLOBS:
        raise Unauthorized(f"The token has more than {MAX_GLOBS} channels.")
    return Grant(claims.get("sub"), Channels.exactly(names), expires_at=expires_at, issued_at=issued_at)
