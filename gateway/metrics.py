"""What a worker counts: plain integers, because some are touched for every message.

The text for Prometheus is made from them when it is asked for, in `gateway.web.ops`.
"""

from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counts since the worker started; gauges are read from the parts themselves."""

    messages: int = 0
    """Messages received from Redis, each once however many subscriptions it matched."""
    deliveries: int = 0
    """Events handed to streams: messages times their recipients."""
    refused_messages: Counter[str] = field(default_factory=Counter)
    """Messages that could not be delivered, by reason."""
    unsigned_messages: int = 0
    """Messages with the mark of durable ones that the gateway's functions haven't signed: delivered as plain ones."""
    streams_opened: int = 0
    streams_closed: Counter[str] = field(default_factory=Counter)
    """Ended streams, by reason."""
    turned_away: Counter[str] = field(default_factory=Counter)
    """Requests for a stream answered with `gateway.closing` and a clean end, by reason."""
    connections: Sized = ()
    """The open connections, those of streams included; set by a server of ours."""
    max_connections: int = 0
    """How many of them may be no streams; 0: this server has no limit of ours."""
    connections_refused: int = 0
    """Connections closed because there were more than that."""
    bad_requests: Counter[str] = field(default_factory=Counter)
    """Connections closed because of what came on them, or didn't come in time, by reason."""
    body_bytes: int = 0
    """Size of the request bodies that have not been answered yet."""
    bodies_refused: int = 0
    """Requests refused because all bodies together were too large (setting `max_bodies_bytes`)."""
    warnings: Counter[str] = field(default_factory=Counter)
    """Warnings and errors of the HTTP server and the event loop, also those held back from the log, by logger."""
    dropped_events: int = 0
    """Events the overflow policy `drop-oldest` has dropped, per client."""
    ticks: int = 0
    """Ticks heard from Redis."""
    replayed: int = 0
    """Events sent again to clients that came back, or asked for history."""
    gaps: Counter[str] = field(default_factory=Counter)
    """`gateway.gap` events, per client, by reason."""
    history_reads: int = 0
    """Reads of durable history in Redis."""
    peer_questions: int = 0
    """Questions to other workers about what is missing here."""
    lag: float = 0.0
    """Seconds from the last request for a tick until it was heard."""
    unauthorized: Counter[str] = field(default_factory=Counter)
    """Requests refused because of who they are from, by reason: `no_token`, `bad_token`, `bad_ticket`, `forbidden`,
    `backend`."""
    tickets: int = 0
    """Tickets made."""
    backend_questions: Counter[str] = field(default_factory=Counter)
    """Questions to `auth_url`, by outcome: `granted`, `unauthorized`, `forbidden`, `rejected` (a client error),
    `failed`; not asked because it has
    failed too often (`resting`) or too many wait (`too_many`); answered by its last grant (`grace`)."""
    key_reads: Counter[str] = field(default_factory=Counter)
    """Attempts to read the keys at `jwks_url`, by outcome: `read`, `failed`."""
    published: int = 0
    """Messages accepted over HTTP."""
    redis_connects: int = 0
    redis_failures: Counter[str] = field(default_factory=Counter)
    """Failed attempts to connect and lost connections, by kind of error."""
