"""GET and POST /events: open a stream."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth.errors import CannotTell
from gateway.auth.tickets import Opening
from gateway.fanout.admission import Admission
from gateway.fanout.encodings import Encodings
from gateway.fanout.granted import GrantedStreams
from gateway.fanout.members import Members
from gateway.fanout.quotas import Quotas
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import Over, TopicRefused, TurnedAway
from gateway.memory.catch_up import Wish
from gateway.memory.place import NO_SUFFIX, Suffix, with_proof
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.web.accept import accepts_gzip
from gateway.web.address import ClientAddress
from gateway.web.body import Body, ClientGone, NoRoom
from gateway.web.departure import Departure
from gateway.web.direct import EXTENSION, DirectHandle, DirectStream
from gateway.web.guard import Guard, Permit
from gateway.web.path import channel_in_path
from gateway.web.portable import PortableStream
from gateway.web.problem import Problem
from gateway.web.stream_request import QueryRequests, StreamRequest, from_json, no_channel
from gateway.web.transient import STREAM_HEADERS, STREAM_TYPE, turn_away

Result = TypeVar("Result")

_LAST_WORDS = 2.0
"""Seconds that clients on the portable path have to read the end of their stream after the lifespan."""


class _TicketUsed(Exception):
    """The stream can't begin just now, and its ticket has been used, or may have been.

    Args:
        reason: why it can't begin.
        proof: what its ids end with.
    """

    def __init__(self, reason: str, proof: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.proof = proof


class Subscribe:
    """The endpoint; an ASGI application, because the direct path needs `scope` and `send` themselves."""

    def __init__(
        self,
        settings: Settings,
        members: Members,
        admission: Admission,
        quotas: Quotas,
        granted: GrantedStreams,
        guard: Guard | None,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._members = members
        self._admission = admission
        self._encodings = Encodings(settings.gzip_min_bytes)
        self._quotas = quotas
        self._granted = granted
        self._guard = guard
        self._address = ClientAddress(settings)
        members.on_leave.append(quotas.discard)
        self._metrics = metrics
        self._queries = QueryRequests(settings)
        self._portable: set[PortableStream] = set()
        self._all_ended: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await self._request(scope, receive)
        except ClientGone:
            return
        except NoRoom:
            await self._turn_away("full", None, False, scope, receive, send)
            return
        torn = request.end == "abort"
        try:
            permit = await self._permit(scope, request)
        except CannotTell:
            await self._turn_away("auth_unavailable", request.last_event_id, torn, scope, receive, send)
            return
        if scope["method"] == "HEAD":
            await Response(None, 200, STREAM_HEADERS, STREAM_TYPE)(scope, receive, send)
            return
        handle = self._handle(scope)
        departure = Departure(receive)
        try:
            subscriber, first = await self._ready(permit, scope, handle, departure)
        except ClientGone:
            return
        except Over:
            # To an EventSource this says that it needn't come back (HTML standard, 9.2.2).
            await Response(None, 204, {"Cache-Control": "no-store"})(scope, receive, send)
            return
        except _TicketUsed as refusal:
            # It is let in again only with an id that says whose it is.
            id_ = with_proof(request.last_event_id, refusal.proof)
            await self._turn_away(refusal.reason, id_, torn, scope, receive, send)
            return
        except (TurnedAway, TopicRefused) as refusal:
            # Redis' permissions can be wrong for a moment: with a 403 every EventSource would stop permanently.
            reason = refusal.reason if isinstance(refusal, TurnedAway) else "redis_denied"
            await self._turn_away(reason, request.last_event_id, torn, scope, receive, send)
            return
        try:
            if handle is None:
                headers = STREAM_HEADERS | ({"Content-Encoding": "gzip"} if subscriber.encoding.compressed else {})
                server: DirectHandle | None = scope.get("extensions", {}).get(EXTENSION)
                on_exit, on_abort, on_tear = (
                    (self._end, None, None) if server is None else (None, server.abandon, server.tear)
                )
                stream = PortableStream(self._members, subscriber, first, headers, on_exit, on_abort, on_tear)
                self._portable.add(stream)
                try:
                    await stream(scope, departure.receive, send)
                finally:
                    self._portable.discard(stream)
                    if self._all_ended is not None and not self._portable:
                        self._all_ended.set()
            else:
                await self._begin_direct(handle, send, subscriber, first)
        finally:
            departure.stop()

    def end_all(self) -> None:
        """Take no new streams, and end the open ones at once: for servers that don't drain."""
        for subscriber in self._admission.drain():
            self._end(subscriber)

    async def wait_ended(self) -> None:
        """Until the streams on the portable path have ended, for a while at most: clients may not read."""
        if not self._portable:
            return
        self._all_ended = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._all_ended.wait()

    def _end(self, subscriber: Subscriber) -> None:
        if subscriber.closed is None:
            self._admission.close(subscriber, "drain", "worker_shutdown")

    async def _turn_away(
        self, reason: str, last_event_id: str | None, torn: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        close = scope["http_version"] in ("1.0", "1.1")  # later versions have streams to end, and forbid the header
        answer = turn_away(reason, last_event_id, self._settings.retry_busy, self._metrics, close, torn)
        await answer(scope, receive, send)

    async def _permit(self, scope: Scope, request: StreamRequest) -> Permit:
        if self._guard is not None:
            return await self._guard.subscriber(scope, request)
        if not request.topics:  # but a ticket, of which nobody here knows what it is for
            raise no_channel()
        return Permit(request, None)

    async def _ready(
        self, permit: Permit, scope: Scope, handle: DirectHandle | None, departure: Departure
    ) -> tuple[Subscriber, bytes]:
        """A subscriber that has joined, and what its stream begins with.

        Raises:
            ClientGone: the client has disconnected meanwhile.
            TurnedAway, TopicRefused, Over: as `Admission.register` and `Admission.begin` do.
            Problem: its ticket can't be used.
            _TicketUsed: as TurnedAway, but its ticket may have been used.
        """
        request, grant, opening = permit
        proof = "" if opening is None else opening.proof
        address = self._address.of(scope) if self._quotas.enabled else ""
        if address and self._quotas.exceeded(address, request.topics):
            raise TurnedAway("address_limit")
        if grant is not None and self._granted.full(grant.sub):
            raise TurnedAway("subject_limit")
        subscriber = self._admission.register(
            request.channels,
            request.patterns,
            self._encodings.get(
                chunked=handle is not None and handle.chunked,
                named=request.named,
                gzip=self._settings.gzip and accepts_gzip(scope["headers"]),
                torn=request.end == "abort",
            ),
            Suffix(proof=proof) if proof else NO_SUFFIX,
        )
        self._quotas.add(address, subscriber)
        if grant is not None:  # from here on, because it may be revoked while the stream waits
            self._granted.add(subscriber, grant.sub, grant.expires_at, grant.issued_at)
        wish = Wish(request.last_event_id, request.history, request.new, proof, request.end == "abort")
        try:
            first = self._admission.begin_now(subscriber, wish)
            if first is None:
                beginning = self._admission.begin(subscriber, wish)
                first = await self._unless_gone(subscriber, beginning, handle, departure)
            if opening is not None:
                # Last: whoever is told to come back comes with a ticket that is still unused.
                await self._unless_gone(subscriber, self._use(opening), handle, departure)
                if subscriber.closed is not None:
                    raise _TicketUsed("draining" if self._members.draining else subscriber.closed, proof)
        except BaseException:
            self._members.leave(subscriber, "client")
            departure.stop()
            raise
        return subscriber, first

    async def _use(self, opening: Opening) -> None:
        assert self._guard is not None
        try:
            await self._guard.use(opening)
        except CannotTell:
            raise _TicketUsed("auth_unavailable", opening.proof) from None

    async def _unless_gone(
        self,
        subscriber: Subscriber,
        work: Coroutine[None, None, Result],
        handle: DirectHandle | None,
        departure: Departure,
    ) -> Result:
        """The result of some work.

        Raises:
            ClientGone: the client has disconnected meanwhile.
        """
        if handle is None:
            return await departure.or_result(work)
        # Two tasks fewer: when all come at once, all wait for the same answer of Redis.
        handle.watch(lambda: self._members.leave(subscriber, "client"))
        try:
            return await work
        finally:
            handle.watch(None)
            if handle.gone:
                handle.abandon()
                raise ClientGone from None

    async def _request(self, scope: Scope, receive: Receive) -> StreamRequest:
        if scope["method"] == "POST":
            settings = self._settings
            with Body(settings.max_bodies_bytes, self._metrics) as body:
                content = await body.read(scope, receive, settings.max_request_bytes, "max_request_bytes")
            return from_json(settings, scope["query_string"], content, scope["headers"])
        return self._queries.get(scope["query_string"], channel_in_path(scope), scope["headers"])

    def _handle(self, scope: Scope) -> DirectHandle | None:
        handle: DirectHandle | None = scope.get("extensions", {}).get(EXTENSION)
        # uvicorn would frame an HTTP/1.0 response as chunks, which that version doesn't know (RFC 9112, 7.1);
        # the direct path can send it as it is, so there it is taken even if `portable` is asked for.
        if handle is not None and handle.chunked and self._settings.delivery == "portable":
            return None
        if handle is None and self._settings.delivery == "direct":
            raise Problem(
                500,
                "delivery is set to direct, and this server does not offer it; start with `gateway run`, or set "
                "delivery to auto.",
            )
        return handle

    async def _begin_direct(self, handle: DirectHandle, send: Send, subscriber: Subscriber, first: bytes) -> None:
        try:
            handle.prepare()
            await send({"type": "http.response.start", "status": 200, "headers": _direct_headers(subscriber)})
        except BaseException as error:
            self._members.leave(subscriber, "client")
            if handle.gone and isinstance(error, RuntimeError):
                handle.abandon()
                return  # uvloop says so of a transport that closed just now
            raise
        DirectStream(self._members, subscriber).begin(handle, first)


def _direct_headers(subscriber: Subscriber) -> list[tuple[bytes, bytes]]:
    return _COMPRESSED_HEADERS if subscriber.encoding.compressed else _DIRECT_HEADERS


_DIRECT_HEADERS = [
    (b"content-type", STREAM_TYPE.encode()),
    *((name.lower().encode(), value.encode()) for name, value in STREAM_HEADERS.items()),
    # The connection ends with the stream: nothing is left that could read another request from it.
    (b"connection", b"close"),
]
_COMPRESSED_HEADERS = [*_DIRECT_HEADERS, (b"content-encoding", b"gzip")]
