"""GET and POST /events: open a stream."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.fanout.admission import Admission, TopicRefused
from gateway.fanout.encodings import Encodings
from gateway.fanout.members import Members
from gateway.fanout.subscriber import Subscriber
from gateway.fanout.turned_away import TurnedAway
from gateway.memory.catch_up import Wish
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.web.accept import accepts_gzip
from gateway.web.body import ClientGone, read_body
from gateway.web.departure import Departure
from gateway.web.direct import EXTENSION, DirectHandle, DirectStream
from gateway.web.path import channel_in_path
from gateway.web.portable import PortableStream
from gateway.web.problem import Problem
from gateway.web.stream_request import QueryRequests, StreamRequest, from_json
from gateway.web.transient import STREAM_HEADERS, STREAM_TYPE, turn_away


class Subscribe:
    """The endpoint; an ASGI application, because the direct path needs `scope` and `send` themselves."""

    def __init__(self, settings: Settings, members: Members, admission: Admission, metrics: Metrics) -> None:
        self._settings = settings
        self._members = members
        self._admission = admission
        self._encodings = Encodings(settings.gzip_min_bytes)
        self._metrics = metrics
        self._queries = QueryRequests(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await self._request(scope, receive)
        except ClientGone:
            return
        if scope["method"] == "HEAD":
            await Response(None, 200, STREAM_HEADERS, STREAM_TYPE)(scope, receive, send)
            return
        handle = self._handle(scope)
        departure = Departure(receive)
        try:
            subscriber, first = await self._ready(request, scope, handle, departure)
        except ClientGone:
            return
        except TurnedAway as refusal:
            answer = turn_away(refusal.reason, request.last_event_id, self._settings.retry_busy, self._metrics)
            await answer(scope, receive, send)
            return
        except TopicRefused as refusal:
            raise Problem(403, f"Redis does not let this gateway subscribe to that: {refusal}.") from None
        try:
            if handle is None:
                headers = STREAM_HEADERS | ({"Content-Encoding": "gzip"} if subscriber.encoding.compressed else {})
                await PortableStream(self._members, subscriber, first, headers)(scope, departure.receive, send)
            else:
                await self._begin_direct(handle, send, subscriber, first)
        finally:
            departure.stop()

    async def _ready(
        self, request: StreamRequest, scope: Scope, handle: DirectHandle | None, departure: Departure
    ) -> tuple[Subscriber, bytes]:
        """A subscriber that has joined, and what its stream begins with.

        Raises:
            ClientGone: the client has disconnected meanwhile.
            TurnedAway, TopicRefused: as `Admission.register` and `Admission.begin` do.
        """
        subscriber = self._admission.register(
            request.channels,
            request.patterns,
            self._encodings.get(
                chunked=handle is not None and handle.chunked,
                named=request.named,
                gzip=self._settings.gzip and accepts_gzip(scope["headers"]),
            ),
        )
        wish = Wish(request.last_event_id, request.history, request.new)
        try:
            first = self._admission.begin_now(subscriber, wish)
            if first is None:
                first = await self._begin(subscriber, wish, handle, departure)
        except BaseException:
            self._members.leave(subscriber, "client")
            departure.stop()
            raise
        return subscriber, first

    async def _begin(
        self, subscriber: Subscriber, wish: Wish, handle: DirectHandle | None, departure: Departure
    ) -> bytes:
        if handle is None:
            return await departure.or_result(self._admission.begin(subscriber, wish))
        # Two tasks fewer: when all come at once, all wait for the same answer of Redis.
        handle.watch(lambda: self._members.leave(subscriber, "client"))
        try:
            return await self._admission.begin(subscriber, wish)
        finally:
            handle.watch(None)
            if handle.gone:
                raise ClientGone from None

    async def _request(self, scope: Scope, receive: Receive) -> StreamRequest:
        if scope["method"] == "POST":
            body = await read_body(scope, receive, self._settings.max_request_bytes, "max_request_bytes")
            return from_json(self._settings, scope["query_string"], body, scope["headers"])
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
