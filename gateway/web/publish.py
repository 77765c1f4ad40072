"""POST /publish/{channel}: what redis-cli PUBLISH does, over HTTP."""

from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.auth.authority import has_keys
from gateway.memory.event import Undeliverable, check_publishable
from gateway.memory.names import BadName, check_channel
from gateway.metrics import Metrics
from gateway.ports import Publisher, PublishFailed
from gateway.settings import Settings
from gateway.web.body import Body, ClientGone
from gateway.web.guard import Guard
from gateway.web.origins import Origins, is_own
from gateway.web.path import channel_in_path
from gateway.web.problem import Problem
from gateway.web.stream_request import query_pairs
from gateway.web.subject_rate import SubjectRate


class Publish:
    """The endpoint. A message that could not be delivered is refused here, where its sender learns why."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        origins: Origins,
        guard: Guard | None,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._rate = SubjectRate(
            settings.subject_publish_rate, "subject_publish_rate", "publishes more than {rate} messages", clock
        )
        self._guard = guard
        self._publisher = publisher
        self._origins = origins
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._settings
        if not settings.http_publish and not has_keys(settings):
            raise Problem(
                403,
                "Publishing over HTTP is off. Turn it on with --http-publish or GATEWAY_HTTP_PUBLISH=true, and let "
                "only those reach it who may publish; or configure tokens (--jwt-secret, GATEWAY_JWT_SECRET).",
            )
        self._check_origin(scope)
        durable, is_end = _asked(scope["query_string"])
        try:
            channel = check_channel(channel_in_path(scope) or "", settings.max_channel_bytes)
        except BadName as error:
            raise Problem(400, f"{error}.") from None
        if self._guard is not None:
            grant = await self._guard.publisher(scope, channel)
            self._rate.take(grant.sub)
        with Body(settings.max_bodies_bytes, self._metrics) as body:
            try:
                payload = await body.read(scope, receive, settings.max_payload_bytes, "max_payload_bytes")
            except ClientGone:
                return
            answer: dict[str, object] = {"channel": channel}
            try:
                if payload or not is_end:
                    answer |= await self._publish(channel, payload, durable or is_end)
                if is_end:
                    answer["end"] = await self._publisher.end(channel)
            except PublishFailed as error:
                raise Problem(503, f"Redis did not take the message: {error}.", {"Retry-After": "1"}) from None
        await JSONResponse(answer, headers={"X-Content-Type-Options": "nosniff"})(scope, receive, send)

    def sweep(self) -> None:
        """Forget who hasn't published lately; to be called every second or so."""
        self._rate.sweep()

    async def _publish(self, channel: str, payload: bytes, durable: bool) -> dict[str, object]:
        settings = self._settings
        try:
            check_publishable(payload, durable, settings.max_payload_bytes, settings.max_id_bytes)
        except Undeliverable as refusal:
            self._metrics.refused_messages[refusal.reason] += 1
            raise Problem(400, f"The message can't be delivered: {refusal}.") from None
        answer: dict[str, object]
        if durable:
            answer = {"id": await self._publisher.publish_durable(channel, payload)}
        else:
            answer = {"receivers": await self._publisher.publish(channel, payload)}
        self._metrics.published += 1
        return answer

    def _check_origin(self, scope: Scope) -> None:
        """Refuse pages of other sites: a browser sends a plain POST for them without asking first (no preflight)."""
        origin = _only(scope, b"origin")
        if origin and not self._origins.allows(origin) and not is_own(origin, _only(scope, b"host")):
            raise Problem(403, f"Pages from {origin} may not publish here; the setting cors_origins says which may.")


def _only(scope: Scope, name: bytes) -> str:
    """A header's value; empty if it is missing.

    Raises:
        Problem: 400, it is there more than once: whoever judged the first may have been asked about the last.
    """
    values: list[str] = [value.decode("latin-1") for each, value in scope["headers"] if each == name]
    if len(values) > 1:
        raise Problem(400, f"The request has {len(values)} headers {name.decode().title()}; one is possible.")
    return values[0] if values else ""


def _asked(query_string: bytes) -> tuple[bool, bool]:
    """Whether the message is to be kept, and whether its channel is over with it."""
    switches = {"durable": False, "end": False}
    for name, value in query_pairs(query_string):
        if name in switches:
            if value not in ("0", "1"):
                raise Problem(400, f"{name}={value!r} is not known; it is 1 or 0.")
            switches[name] = value == "1"
        elif name != "token":
            raise Problem(400, f"There is no parameter {name!r} here; known are durable, end and token.")
    return switches["durable"], switches["end"]
