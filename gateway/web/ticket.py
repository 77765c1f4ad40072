"""POST /ticket: a ticket for one stream."""

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.auth.tickets import Tickets, TooLarge
from gateway.metrics import Metrics
from gateway.ports import StoreFailed
from gateway.settings import Settings
from gateway.web.body import Body, ClientGone
from gateway.web.guard import Guard
from gateway.web.problem import Problem
from gateway.web.stream_request import json_object, topics_from_json
from gateway.web.subject_rate import SubjectRate

_USUAL_SECONDS = 60.0
_SHORTEST_SECONDS = 1.0


class MakeTicket:
    """The endpoint, for those who may have the stream themselves."""

    def __init__(
        self,
        settings: Settings,
        tickets: Tickets,
        guard: Guard | None,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._tickets = tickets
        self._guard = guard
        self._rate = SubjectRate(
            settings.subject_ticket_rate, "subject_ticket_rate", "asks for more than {rate} tickets", clock
        )
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._settings
        if self._guard is None:
            raise Problem(403, "Everything is public here, so no ticket is needed (setting jwt_secret).")
        with Body(settings.max_bodies_bytes, self._metrics) as body:
            try:
                content = await body.read(scope, receive, settings.max_request_bytes, "max_request_bytes")
            except ClientGone:
                return
        value = json_object(content)
        request, seconds = topics_from_json(settings, value), _seconds(settings, value)
        grant = await self._guard.ticket_owner(scope, request)
        self._rate.take(grant.sub)
        try:
            ticket = await self._tickets.make(grant, request.channels, request.patterns, seconds)
        except TooLarge:
            raise Problem(
                400,
                f"The names of the channels have more than {settings.ticket_bytes} bytes together (setting "
                "ticket_bytes); a token in a cookie or header has no such limit.",
            ) from None
        except StoreFailed as error:
            raise Problem(503, f"Redis did not take it: {error}.", {"Retry-After": "1"}) from None
        answer = {"ticket": ticket.text, "expires_at": ticket.expires_at}
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        await JSONResponse(answer, headers=headers)(scope, receive, send)

    def sweep(self) -> None:
        """Forget who hasn't asked lately; to be called every second or so."""
        self._rate.sweep()


def _seconds(settings: Settings, value: dict[str, Any]) -> float:
    seconds = value.get("seconds", min(_USUAL_SECONDS, settings.ticket_seconds))
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not _SHORTEST_SECONDS <= seconds <= settings.ticket_seconds:
        raise Problem(
            400,
            f"The member seconds must be a number from {_SHORTEST_SECONDS:g} to {settings.ticket_seconds:g} (setting "
            "ticket_seconds).",
        )
    return float(seconds)
