"""`gateway token`."""

import re
import time
from pathlib import Path
from typing import Any

import click
import jwt
from jwt.exceptions import PyJWTError

from gateway.auth.keys import HMAC
from gateway.auth.tokens import CLAIM
from gateway.commands.settings_options import load, settings_options
from gateway.settings import JWT_ALGORITHMS, Settings

_DURATION = re.compile(r"(\d+)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.command(
    epilog="Example:  gateway token --sub alice --subscribe 'news.*' --subscribe 'user.{sub}' --expires 15m"
)
@click.option("--sub", help="Whom it is for.")
@click.option("--subscribe", multiple=True, metavar="GLOB", help="Channels they may subscribe to; may be repeated.")
@click.option("--publish", multiple=True, metavar="GLOB", help="Channels they may publish on; likewise.")
@click.option(
    "--presence", multiple=True, metavar="GLOB", help="Channels of which they may see who is there; likewise."
)
@click.option("--admin", is_flag=True, help="They may end the streams of others.")
@click.option(
    "--expires", default="1h", show_default=True, metavar="DURATION", help="After 90s, 15m, 1h, 30d; `never`."
)
@click.option(
    "--private-key", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Sign with this PEM key; else with the setting jwt_secret.",
)  # fmt: skip
@settings_options(Settings, only=("jwt_secret", "jwt_algorithms", "jwt_audience", "jwt_issuer"))
def token(
    sub: str | None,
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    presence: tuple[str, ...],
    admin: bool,
    expires: str,
    private_key: Path | None,
    **flags: Any,
) -> None:
    """Make a token that a gateway with the same settings accepts, and print it.

    For trying out and for scripts. An application makes its own, with any JWT library: the claim `gateway` holds what
    it allows, such as {"subscribe": ["news.*"], "publish": []}.
    """
    settings = load(Settings, flags)
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now}
    if (seconds := _seconds(expires)) is not None:
        claims["exp"] = now + seconds
    if sub is not None:
        claims["sub"] = sub
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience[0]
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer[0]
    named = {"subscribe": subscribe, "publish": publish, "presence": presence}
    claims[CLAIM] = {name: list(globs) for name, globs in named.items() if globs} | ({"admin": True} if admin else {})
    click.echo(_signed(claims, settings, private_key))


def _signed(claims: dict[str, Any], settings: Settings, private_key: Path | None) -> str:
    if private_key is None and not settings.jwt_secret:
        raise click.UsageError(
            "There is nothing to sign with: set jwt_secret (--jwt-secret, GATEWAY_JWT_SECRET), or give --private-key."
        )
    key = settings.jwt_secret if private_key is None else private_key.read_bytes()
    for algorithm in settings.jwt_algorithms or JWT_ALGORITHMS:
        if (algorithm in HMAC) != (private_key is None):
            continue
        try:
            return jwt.encode(claims, key, algorithm)
        except (PyJWTError, TypeError, ValueError):  # a key of another kind
            continue
    raise click.ClickException(
        "This key signs with none of the algorithms that are accepted (setting jwt_algorithms)."
    )


def _seconds(text: str) -> int | None:
    if text == "never":
        return None
    if (match := _DURATION.fullmatch(text)) is None:
        raise click.BadParameter(f"{text!r} is no duration such as 90s, 15m, 1h or 30d, and not `never`.")
    return int(match[1]) * _SECONDS[match[2]]
