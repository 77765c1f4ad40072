"""`gateway publish`."""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import click
import orjson

from gateway.broker.publisher import publisher
from gateway.commands.settings_options import load, settings_options
from gateway.memory.event import Undeliverable, check_publishable
from gateway.memory.names import BadName, check_channel
from gateway.ports import PublishFailed
from gateway.settings import Settings, SettingsError


@click.command(
    epilog="Examples:  gateway publish news hello  ·  gateway publish news '{\"price\": 3}' --event tick  ·  "
    "tail -f app.log | gateway publish logs -"
)
@click.argument("channel")
@click.argument("data")
@click.option("--event", "event", help="The event's type; the browser's default is `message`.")
@click.option("--id", "id_", help="The event's id, which a browser sends back when it reconnects.")
@click.option("--durable", is_flag=True, help="Keep it in Redis, so that clients that are away get it later.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@settings_options(Settings, only=("redis_url", "channel_prefix"))
def publish(
    channel: str, data: str, event: str | None, id_: str | None, durable: bool, as_json: bool, **flags: Any
) -> None:
    """Publish DATA on CHANNEL, as redis-cli PUBLISH does.

    With `-` as DATA each line of standard input is a message, sent as soon as it is read.
    """
    settings = load(Settings, flags)
    messages = receivers = 0
    last_id = ""
    try:
        check_channel(channel, settings.max_channel_bytes)
        with asyncio.Runner() as runner:
            redis = runner.run(publisher(settings))
            try:
                for payload in _payloads(data):
                    message = _message(payload, event, id_)
                    check_publishable(message, durable, settings.max_payload_bytes, settings.max_id_bytes)
                    if durable:
                        last_id = runner.run(redis.publish_durable(channel, message))
                    else:
                        receivers = runner.run(redis.publish(channel, message))
                    messages += 1
            finally:
                runner.run(redis.close())
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except (BadName, Undeliverable) as error:
        raise click.ClickException(f"{error}{f' (after {messages} messages)' if messages else ''}") from None
    except PublishFailed as error:
        raise click.ClickException(f"Redis did not take the message: {error}") from None
    except KeyboardInterrupt:
        pass
    outcome = {"id": last_id} if durable else {"receivers": receivers}
    if as_json:
        click.echo(json.dumps({"channel": channel, "messages": messages, **outcome}))
    else:
        count = f"{messages} messages" if messages != 1 else "1 message"
        result = f"kept as {last_id}" if durable else f"received by {receivers} Redis connection(s)"
        click.echo(f"{count} published on {channel}, {result}.")


def _payloads(data: str) -> Iterator[bytes]:
    if data != "-":
        yield data.encode(errors="surrogateescape")
        return
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def _message(payload: bytes, event: str | None, id_: str | None) -> bytes:
    if event is None and id_ is None:
        return payload
    try:
        data = payload.decode()
    except UnicodeDecodeError:
        raise Undeliverable("not_utf8", "the data is not UTF-8") from None
    envelope = {"event": event or "", "data": data}
    if id_ is not None:
        envelope["id"] = id_
    try:
        return orjson.dumps(envelope)
    except TypeError:  # what the shell gave as type or id
        raise Undeliverable("not_utf8", "the event's type or id is not UTF-8") from None
