"""The gateway's own events in a stream; `gateway.gap` is in `gateway.memory.replay`."""

from collections.abc import Iterable

from gateway.memory.event import ENDED, Event, own_event
from gateway.memory.topic import Topic


def opened(topics: Iterable[Topic], retry: float) -> Event:
    """`gateway.open`: the stream is live from here.

    Args:
        topics: of the stream.
        retry: the client's reconnection time, in seconds.
    """
    data = {"channels": [topic.name for topic in topics if not topic.is_pattern]}
    if patterns := [topic.name for topic in topics if topic.is_pattern]:
        data["patterns"] = patterns
    return _with_retry(own_event("gateway.open", data), retry)


def closing(reason: str, retry: float) -> Event:
    """`gateway.closing`: the client is to reconnect.

    Args:
        reason: `worker_shutdown`, `max_age`, `expired`, or why this worker can't serve it now.
        retry: the client's reconnection time, in seconds.
    """
    return _with_retry(own_event("gateway.closing", {"reason": reason}), retry)


def ended(channel: str) -> Event:
    """`gateway.ended`: the channel is over."""
    return own_event(ENDED, {"channel": channel})


def expiring(at: float) -> Event:
    """`gateway.expiring`: the grant that the stream was opened with ends soon, and the stream with it.

    Args:
        at: when, in seconds since 1970.
    """
    return own_event("gateway.expiring", {"at": round(at)})


def _with_retry(event: Event, seconds: float) -> Event:
    event.retry = int(seconds * 1000)
    return event
