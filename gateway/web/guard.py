"""What a request may do, asked of the authority, and answered as HTTP does."""

from starlette.types import Scope

from gateway.auth.authority import Authority
from gateway.auth.errors import CannotTell, Forbidden, Unauthorized
from gateway.auth.grant import Grant
from gateway.settings import Settings
from gateway.web.address import ClientAddress
from gateway.web.credentials import ReadCredentials
from gateway.web.origins import Origins
from gateway.web.problem import Problem
from gateway.web.stream_request import StreamRequest


class Guard:
    """Lets requests through.

    Args:
        settings: where tokens may be.
        authority: decides.
        origins: whose pages may use cookies.
    """

    def __init__(self, settings: Settings, authority: Authority, origins: Origins) -> None:
        self._authority = authority
        self._address = ClientAddress(settings)
        self._credentials = ReadCredentials(settings, origins)

    async def subscriber(self, scope: Scope, request: StreamRequest) -> Grant:
        """The grant of who asks for a stream.

        Raises:
            Problem: 401 or 403.
            CannotTell: that can't be decided just now.
        """
        try:
            return await self._authority.subscriber(
                self._credentials.of(scope, request.tokens),
                request.channels,
                request.patterns,
                self._address.exactly(scope),
            )
        except (Unauthorized, Forbidden) as refusal:
            raise _problem(refusal) from None

    async def admin(self, scope: Scope) -> Grant:
        """The grant of who may end the streams of others.

        Raises:
            Problem: 401 or 403, or 503 if that can't be decided just now.
        """
        try:
            return await self._authority.admin(self._credentials.of(scope), self._address.exactly(scope))
        except (Unauthorized, Forbidden) as refusal:
            raise _problem(refusal) from None
        except CannotTell as reason:
            raise Problem(503, f"Nobody can tell who may do this: {reason}.", {"Retry-After": "1"}) from None

    async def publisher(self, scope: Scope, channel: str) -> Grant:
        """The grant of who publishes.

        Raises:
            Problem: 401 or 403, or 503 if that can't be decided just now.
        """
        try:
            return await self._authority.publisher(self._credentials.of(scope), channel, self._address.exactly(scope))
        except (Unauthorized, Forbidden) as refusal:
            raise _problem(refusal) from None
        except CannotTell as reason:
            raise Problem(503, f"Nobody can tell who may publish: {reason}.", {"Retry-After": "1"}) from None


def _problem(refusal: Unauthorized | Forbidden) -> Problem:
    if isinstance(refusal, Forbidden):
        return Problem(403, str(refusal))
    # RFC 6750, 3: what kind of credentials would do.
    return Problem(401, str(refusal), {"WWW-Authenticate": 'Bearer realm="gateway"'})
