"""`gateway dev`."""

import asyncio
import shlex
import socket
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from gateway.app import Gateway
from gateway.broker.client import without_password
from gateway.broker.embedded import EmbeddedRedis
from gateway.broker.probe import answers
from gateway.commands.logs import configure_logging
from gateway.commands.settings_options import load, settings_options
from gateway.server.files import raise_file_limit
from gateway.server.listening_socket import CannotListen
from gateway.server.server import GatewayServer
from gateway.settings import DevSettings, SettingsError

_PORTS_TRIED = 20


@click.command()
@settings_options(DevSettings)
def dev(**flags: Any) -> None:
    """Try it out: a worker, the console page and, if none answers, a Redis, all in this process.

    Everything a first try needs is on: publishing over HTTP, the console, patterns. Unless --host says otherwise it
    listens on this machine only.
    """
    settings = load(DevSettings, flags)
    quiet = "log_level" not in settings.model_fields_set and not settings.access_log
    configure_logging("warning" if quiet else settings.log_level)
    if settings.host not in ("127.0.0.1", "localhost") and "allowed_hosts" not in settings.model_fields_set:
        settings = settings.model_copy(update={"allowed_hosts": ()})  # meant to be reached by other names
    raise_file_limit()
    try:
        with ExitStack() as stack:
            where = without_password(settings.redis_url)
            note = f"Redis: {where}"
            redis_cli = _redis_cli(settings.redis_url)
            if not asyncio.run(answers(settings)):
                embedded = stack.enter_context(EmbeddedRedis())
                settings = settings.model_copy(update={"redis_url": embedded.url})
                redis_cli = _redis_cli(embedded.url)
                note = (
                    f"No Redis answers at {where}, so one for trying out (fakeredis) runs in this process on port "
                    f"{embedded.port}. It forgets everything when this command ends; for production run a real one."
                )
            if flags.get("port") is None and "port" not in settings.model_fields_set:
                settings = settings.model_copy(update={"port": _free_port(settings.host, settings.port)})
            gateway = Gateway(settings, redis_cli)
            gateway.says_it_is_public = False
            server = GatewayServer(
                gateway,
                on_started=lambda address: _announce(address, redis_cli, note, settings, gateway.is_public),
            )
            server.run()
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except CannotListen as error:
        raise click.ClickException(str(error)) from None


_ACCESS = {
    True: "Everything is public: whoever reaches this gateway may subscribe and publish.",
    False: "Channels need a token, but for those of public_channels: `gateway token` makes one.",
}


def _announce(address: str, redis_cli: str, note: str, settings: DevSettings, is_public: bool) -> None:
    url = f"http://{address}".replace("127.0.0.1", "localhost")
    prefix = settings.channel_prefix
    own = "" if redis_cli == "redis-cli" else f" --redis-url {without_password(settings.redis_url)}"
    channel = shlex.quote(f"{prefix}news")
    Console().print(
        Panel.fit(
            f"Open     [bold link={url}]{url}[/]\n"
            f"Publish  [bold]{escape(redis_cli)} PUBLISH {escape(channel)} hello[/]\n"
            f"    or   [bold]gateway publish{escape(own)} news hello[/]\n"
            f"Listen   [bold]curl -N '{url}/events?channel=news'[/]\n\n"
            f"[dim]{escape(note)}\n{_ACCESS[is_public]}\nStop with Ctrl-C.[/]",
            title="gateway dev",
            title_align="left",
        )
    )


def _redis_cli(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis-cli -s {parts.path}"
    host = "" if parts.hostname in (None, "localhost", "127.0.0.1") else f" -h {parts.hostname}"
    port = "" if parts.port in (None, 6379) else f" -p {parts.port}"
    tls = " --tls" if parts.scheme == "rediss" else ""
    user = f" --user {parts.username}" if parts.username else ""
    return f"redis-cli{host}{port}{tls}{user}{' --askpass' if parts.password else ''}"


def _free_port(host: str, first: int) -> int:
    for port in range(first, first + _PORTS_TRIED):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    return first
