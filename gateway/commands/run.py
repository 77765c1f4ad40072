"""`gateway run`."""

import logging
from typing import Any

import click

from gateway import __version__
from gateway.app import EVERYTHING_IS_PUBLIC, Gateway
from gateway.commands.logs import configure_logging
from gateway.commands.settings_options import load, settings_options
from gateway.server.files import raise_file_limit
from gateway.server.listening_socket import CannotListen
from gateway.server.server import GatewayServer
from gateway.settings import Settings, SettingsError

logger = logging.getLogger("gateway")


@click.command(
    epilog="Every option is also a variable of the environment; an option wins. SIGTERM drains: open streams are "
    "ended one by one, and a second SIGTERM leaves at once."
)
@settings_options(Settings)
def run(**flags: Any) -> None:
    """Run one production worker.

    It needs a Redis, and waits for it as long as it can't be reached. Run several behind nginx.
    """
    settings = load(Settings, flags)
    configure_logging(settings.log_level)
    files = raise_file_limit()
    if settings.max_streams > files:
        logger.warning(
            "max_streams is %d, but this process may open only %d files; raise the limit (ulimit -n)",
            settings.max_streams,
            files,
        )
    try:
        gateway = Gateway(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    gateway.says_it_is_public = False

    def announce(address: str) -> None:
        streams = gateway.members.max_streams
        logger.info("gateway %s listens on %s, takes up to %d streams", __version__, address, streams)
        if gateway.is_public:
            logger.info(EVERYTHING_IS_PUBLIC)

    server = GatewayServer(gateway, on_started=announce)
    try:
        server.run()
    except CannotListen as error:
        raise click.ClickException(str(error)) from None
