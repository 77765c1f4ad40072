"""The console script `gateway`."""

import click

from gateway import __version__
from gateway.commands.on_demand import CommandsOnDemand

_COMMANDS = CommandsOnDemand(
    {
        "dev": "gateway.commands.dev:dev",
        "run": "gateway.commands.run:run",
        "publish": "gateway.commands.publish:publish",
        "listen": "gateway.commands.listen:listen",
        "end": "gateway.commands.end:end",
        "revoke": "gateway.commands.revoke:revoke",
        "token": "gateway.commands.token:token",
        "bench": "gateway.bench.command:command",
    }
)


@click.group(commands=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """Server-Sent Events from Redis Pub/Sub: PUBLISH once, every browser sees it.

    Begin with `gateway dev`; it needs nothing else.
    """
