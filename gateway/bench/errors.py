"""What stops a benchmark."""

import click


class BenchError(click.ClickException):
    """The benchmark can't be run, or can't go on: one sentence that says why."""


class ResponseError(Exception):
    """The answer is not an event stream, or its framing or coding is broken."""
