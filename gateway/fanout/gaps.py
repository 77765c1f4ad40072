"""`gateway.gap`: events were, or may have been, missed.

The reasons a client can be told:

- `redis_lost`: the connection to Redis was interrupted, and what was published meanwhile was not heard.
- `unknown_id`: the id it came back with is not, or no longer, known to this worker.
- `not_kept`: this worker does not have all that was published on the channel since that id.
- `trimmed`: the durable history of the channel no longer reaches back to that id.
- `expired`: the id is older than durable history is kept.
- `history_lost`: Redis has lost durable history since that id (flushed, or restarted without its data).
- `history_unavailable`: the durable history could not be read just now.
- `too_many`: more was missed than is sent again; the newest follow.
- `overflow`: this client read too slowly, and the oldest events waiting for it were dropped.
"""

from gateway.fanout.event import Event, own_event


def gap(channel: str, reason: str, since: str | None) -> Event:
    """The event that tells of it.

    Args:
        channel: which channel (or pattern).
        reason: one of those above.
        since: the last id before it, where there is one.
    """
    return own_event("gateway.gap", {"channel": channel, "reason": reason, "since": since})
