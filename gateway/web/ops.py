"""What those who run it ask: /healthz, /readyz, /metrics."""

import asyncio
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.fanout.admission import Admission
from gateway.fanout.members import Members
from gateway.memory.history import History
from gateway.metrics import Metrics
from gateway.ports import Source, TopicCounts

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Ops:
    """The three endpoints."""

    def __init__(
        self,
        members: Members,
        topics: TopicCounts,
        history: History,
        admission: Admission,
        source: Source,
        metrics: Metrics,
    ) -> None:
        self._members = members
        self._source = source
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(members, topics, history, admission, source, metrics))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    async def healthz(self, _: Request) -> Response:
        """The process answers; nothing is said about Redis, for a restart would not bring it back."""
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def readyz(self, _: Request) -> Response:
        """Whether new clients can be served."""
        problems = {}
        if self._members.draining:
            problems["draining"] = "this worker is shutting down"
        if self._members.full:
            problems["full"] = f"{self._members.max_streams} streams are open (setting max_streams)"
        if (redis := self._source.problem) is not None:
            problems["redis"] = redis
        if problems:
            return JSONResponse({"status": "not ready", "problems": problems}, 503, _HEADERS)
        return JSONResponse({"status": "ready"}, headers=_HEADERS)

    async def metrics(self, _: Request) -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(self._registry), headers={**_HEADERS, "Content-Type": CONTENT_TYPE_LATEST})


class _Collector(Collector):
    """Reads the worker's plain integers when it is asked, so that counting costs next to nothing."""

    def __init__(
        self,
        members: Members,
        topics: TopicCounts,
        history: History,
        admission: Admission,
        source: Source,
        metrics: Metrics,
    ) -> None:
        self._members = members
        self._topics = topics
        self._history = history
        self._admission = admission
        self._source = source
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        members, admission, counts = self._members, self._admission, self._metrics
        backlogs = members.backlogs
        yield _gauge("streams", "Open streams.", len(members))
        yield _gauge("streams_limit", "Streams this worker takes.", members.max_streams)
        if counts.max_connections:
            others = max(len(counts.connections) - len(members), 0)
            yield _gauge("connections", "Open connections that are no streams.", others)
            yield _gauge(
                "connections_limit", "Connections this worker takes besides streams.", counts.max_connections
            )
            yield _counter("connections_refused", "Closed for max_connections.", counts.connections_refused)
        yield _gauge("channels", "Channels and patterns subscribed to in Redis.", len(self._topics))
        yield _gauge("redis_connected", "1 while messages can arrive from Redis.", int(self._source.problem is None))
        yield _gauge("draining", "1 while this worker is shutting down.", int(members.draining))
        yield _gauge("queued_streams", "Streams with events waiting for a slow client.", len(backlogs))
        yield _gauge("queued_events", "Events waiting for slow clients.", sum(backlog.events for backlog in backlogs))
        yield _gauge("queued_bytes", "Bytes waiting for slow clients.", sum(backlog.bytes for backlog in backlogs))
        yield _gauge("unsent_bytes", "Memory of all that waits for clients.", members.unsent.bytes)
        yield _gauge("unsent_limit_bytes", "How much of it there may be.", members.unsent.limit)
        yield _gauge("body_bytes", "Size of request bodies not answered yet.", counts.body_bytes)
        yield _gauge("patterns", "Patterns among them: Redis compares each PUBLISH with all.", self._topics.patterns)
        yield _gauge("replay_bytes", "Size of the long replays not sent to the end yet.", admission.long.room.bytes)
        yield _gauge(
            "replays_running", "Long replays, and reads of durable history, under way.", admission.long.gate.inside
        )
        yield _gauge("replays_waiting", "Those that wait for it.", admission.long.gate.waiting)
        yield _gauge("history_bytes", "Size of the recent events kept.", self._history.bytes)
        yield _gauge("redis_lag_seconds", "From this worker through Redis and back.", counts.lag)
        yield _gauge("tasks", "Tasks of the event loop; does not grow with direct streams.", len(asyncio.all_tasks()))
        yield _counter("messages", "Messages received from Redis.", counts.messages)
        yield _counter("deliveries", "Events handed to streams.", counts.deliveries)
        yield _counter("published", "Messages accepted over HTTP.", counts.published)
        yield _counter("pings", "Comments sent to idle streams.", members.pinger.pings)
        yield _counter("dropped_events", "Events dropped for slow clients (drop-oldest).", counts.dropped_events)
        yield _counter("replayed", "Events sent again to clients that came back.", counts.replayed)
        yield _counter("ticks", "Ticks heard from Redis.", counts.ticks)
        yield _counter("history_reads", "Reads of durable history.", counts.history_reads)
        yield _counter(
            "peer_questions", "Questions to other workers about what is missing here.", counts.peer_questions
        )
        yield _counter("gaps", "Gap events sent, by reason.", counts.gaps, "reason")
        yield _counter("redis_connects", "Connections made to Redis.", counts.redis_connects)
        yield _counter("streams_opened", "Streams begun.", counts.streams_opened)
        yield _counter("streams_closed", "Streams ended, by reason.", counts.streams_closed, "reason")
        yield _counter("turned_away", "Streams not served, by reason.", counts.turned_away, "reason")
        yield _counter(
            "unauthorized_requests",
            "Requests rejected with 401 or 403, by reason.",
            counts.unauthorized,
            "reason",
        )
        yield _counter("tickets", "Tickets made.", counts.tickets)
        yield _counter("backend_questions", "Questions to auth_url, by outcome.", counts.backend_questions, "outcome")
        yield _counter("key_reads", "Attempts to read the keys at jwks_url, by outcome.", counts.key_reads, "outcome")
        yield _counter("bad_requests", "Connections closed for bad or late requests.", counts.bad_requests, "reason")
        yield _counter("warnings", "The HTTP server's warnings, logged or not, by logger.", counts.warnings, "logger")
        yield _counter("bodies_refused", "Requests refused for max_bodies_bytes.", counts.bodies_refused)
        yield _counter("refused_messages", "Undeliverable messages, by reason.", counts.refused_messages, "reason")
        yield _counter(
            "unsigned_messages",
            "Messages with the mark of the gateway's own but without a right signature: delivered as plain ones.",
            counts.unsigned_messages,
        )
        yield _counter("redis_failures", "Failures of Redis, by kind.", counts.redis_failures, "kind")


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gateway_{name}", text, value)


def _counter(name: str, text: str, value: int | dict[str, int], label: str = "") -> Metric:
    if not isinstance(value, dict):
        return CounterMetricFamily(f"gateway_{name}", text, value)
    family = CounterMetricFamily(f"gateway_{name}", text, labels=[label])
    for key, count in value.items():
        family.add_metric([key], count)
    return family
