"""`gateway revoke`."""

import asyncio
from typing import Any

import click

from gateway.broker.revocations import revocations
from gateway.commands.settings_options import load, settings_options
from gateway.ports import PublishFailed
from gateway.settings import Settings, SettingsError


@click.command(epilog="Example:  gateway revoke alice")
@click.argument("sub")
@settings_options(Settings, only=("redis_url", "channel_prefix", "revocation_age"))
def revoke(sub: str, **flags: Any) -> None:
    """End the streams of SUB on all workers, and have them reject every grant that was given to SUB before now."""
    settings = load(Settings, flags)
    if not sub:
        raise click.UsageError("SUB is empty.")

    async def run() -> None:
        to = revocations(settings)
        try:
            await to.revoke(sub)
        finally:
            await to.close()

    try:
        asyncio.run(run())
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except PublishFailed as error:
        raise click.ClickException(f"Redis did not take it: {error}") from None
    click.echo(f"Revoked: what was granted to {sub} before now doesn't count any more.")
