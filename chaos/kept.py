"""What Redis has of the durable messages, looked up behind the gateway's back."""

from collections.abc import Iterable

import redis

from chaos.payload import numbers


def stream_key(channel: str) -> str:
    """Where Redis keeps a channel's durable messages."""
    return f"gateway.stream:{channel}"


def kept(client: redis.Redis, channels: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of the messages it still has, by channel."""
    # As text, because it matters that they are there, not in which field.
    return {channel: numbers(channel, str(client.xrange(stream_key(channel)))) for channel in channels}
