"""The console script `gateway`."""

import click

from gateway import __version__
from gateway.bench.command import command as bench
from gateway.commands.dev import dev
from gateway.commands.listen import listen
from gateway.commands.publish import publish
from gateway.commands.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """Server-Sent Events from Redis Pub/Sub: PUBLISH once, every browser sees it.

    Begin with `gateway dev`; it needs nothing else.
    """


for _command in (dev, run, publish, listen, bench):
    main.add_command(_command)
