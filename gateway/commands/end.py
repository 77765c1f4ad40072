"""`gateway end`."""

import asyncio
from typing import Any

import click

from gateway.broker.publisher import publisher
from gateway.commands.settings_options import load, settings_options
from gateway.memory.names import BadName, check_channel
from gateway.ports import PublishFailed
from gateway.settings import Settings, SettingsError


@click.command(epilog="Example:  gateway end run.42")
@click.argument("channel")
@settings_options(Settings, only=("redis_url", "channel_prefix", "end_age"))
def end(channel: str, **flags: Any) -> None:
    """Say that CHANNEL is over: its streams end, and don't come back until something durable is published on it."""
    settings = load(Settings, flags)

    async def run() -> str:
        to = await publisher(settings)
        try:
            return await to.end(channel)
        finally:
            await to.close()

    try:
        check_channel(channel, settings.max_channel_bytes)
        id_ = asyncio.run(run())
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except BadName as error:
        raise click.ClickException(str(error)) from None
    except PublishFailed as error:
        raise click.ClickException(f"Redis did not take it: {error}") from None
    click.echo(f"{channel} is over, at {id_}.")
