"""What a request may do, asked of the authority, and answered as HTTP does."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.types import Scope

from gateway.auth.authority import Authority
from gateway.auth.credentials import Credentials
from gateway.auth.errors import CannotTell, Forbidden, Unauthorized
from gateway.auth.grant import Grant
from gateway.auth.tickets import Opening, Tickets
from gateway.settings import Settings
from gateway.web.address import ClientAddress
from gateway.web.credentials import ReadCredentials
from gateway.web.origins import Origins
from gateway.web.problem import Problem
from gateway.web.stream_request import StreamRequest


class Permit(NamedTuple):
    """A stream that somebody may have.

    Attributes:
        request: what it is to be.
        grant: whose it is; None: everything is public.
        opening: what its ticket opens; None: there is no ticket.
    """

    request: StreamRequest
    grant: Grant | None
    opening: Opening | None = None


class Guard:
    """Lets requests through.

    Args:
        settings: where tokens may be.
        authority: decides.
        tickets: says what a ticket opens.
        origins: whose pages may use cookies.
    """

    def __init__(self, settings: Settings, authority: Authority, tickets: Tickets, origins: Origins) -> None:
        self._authority = authority
        self._tickets = tickets
        self._address = ClientAddress(settings)
        self._credentials = ReadCredentials(settings, origins)

    async def subscriber(self, scope: Scope, request: StreamRequest) -> Permit:
        """What somebody may have who asks for a stream.

        A ticket is what counts if there is one: with a bad one its sender must not become somebody else.

        Raises:
            Problem: 401 or 403.
            CannotTell: that can't be decided just now.
        """
        try:
            if request.ticket is not None:
                opening = await self._tickets.open(
                    request.ticket, request.channels, request.patterns, request.last_event_id
                )
                return Permit(request.opened_by(opening.channels, opening.patterns), opening.grant, opening)
            return Permit(
                request,
                await self._authority.subscriber(
                    self._credentials.of(scope, request.tokens),
                    request.channels,
                    request.patterns,
                    self._address.exactly(scope),
                ),
            )
        except (Unauthorized, Forbidden) as refusal:
            raise _problem(refusal) from None

    async def use(self, opening: Opening) -> None:
        """The stream begins; its ticket has been used from now on.

        Raises:
            Problem: 401, somebody else has used it meanwhile.
            CannotTell: that can't be said just now.
        """
        try:
            await self._tickets.use(opening)
        except Unauthorized as refusal:
            raise _problem(refusal) from None

    async def ticket_owner(self, scope: Scope, request: StreamRequest) -> Grant:
        """The grant of who wants a ticket for a stream.

        Raises:
            Problem: 401 or 403, or 503 if that can't be decided just now.
        """
        return await self._decided(
            scope,
            "who may have a ticket",
            lambda credentials, address: self._authority.ticket_owner(
                credentials, request.channels, request.patterns, address
            ),
        )

    async def admin(self, scope: Scope) -> Grant:
        """The grant of who may end the streams of others.

        Raises:
            Problem: 401 or 403, or 503 if that can't be decided just now.
        """
        return await self._decided(scope, "who may do this", self._authority.admin)

    async def publisher(self, scope: Scope, channel: str) -> Grant:
        """The grant of who publishes.

        Raises:
            Problem: 401 or 403, or 503 if that can't be decided just now.
        """
        return await self._decided(
            scope,
            "who may publish",
            lambda credentials, address: self._authority.publisher(credentials, channel, address),
        )

    async def _decided(
        self, scope: Scope, what: str, decide: Callable[[Credentials, str], Awaitable[Grant]]
    ) -> Grant:
        """A decision for a request that isn't one for a stream, about whoever it is from."""
        try:
            return await decide(self._credentials.of(scope), self._address.exactly(scope))
        except (Unauthorized, Forbidden) as refusal:
            raise _problem(refusal) from None
        except CannotTell as reason:
            raise Problem(503, f"Nobody can tell {what}: {reason}.", {"Retry-After": "1"}) from None


def _problem(refusal: Unauthorized | Forbidden) -> Problem:
    if isinstance(refusal, Forbidden):
        return Problem(403, str(refusal))
    # RFC 6750, 3: what kind of credentials would do.
    return Problem(401, str(refusal), {"WWW-Authenticate": 'Bearer realm="gateway"'})
