"""What a client asks for when it asks for a stream."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from gateway.memory.names import BadName, NotAllowed, check_channel, check_pattern
from gateway.memory.place import MAX_PLACE_BYTES, without_proof
from gateway.settings import Settings
from gateway.web.problem import Problem

# EventSource polyfills can't set headers and send the id in the query; each spells it in its own way. What a polyfill
# adds is newer than what the page has put into its URL.
_LAST_EVENT_ID = ("lastEventId", "lastEventID", "Last-Event-ID", "last_event_id")
_PARAMETERS = ("channel", "pattern", "new", "events", "history", "end", "token", "ticket", "strict", *_LAST_EVENT_ID)
_MEMBERS = ("channels", "patterns", "new", "events", "history", "end", "last_event_id", "tokens", "ticket")
# What a POST may have in its query; all else of the above belongs in its body.
_POST_PARAMETERS = ("token", "ticket", "strict")
_MAX_PARAMETERS = 20_000
_MAX_REMEMBERED = 256
_MAX_REMEMBERED_BYTES = 512


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A checked request for a stream.

    Attributes:
        channels: names of channels, each once.
        patterns: Redis globs, each once.
        new: which of them were added since the id: what was published on them before is not missed.
        last_event_id: where the client was when it lost its last stream; None for a new one.
        history: how many kept events of each channel come first.
        named: events without a type of their own get their channel's name as type.
        end: how its end is told; `abort`: see README.md.
        tokens: those in the body.
        ticket: says who may have the stream, and of what it is where nothing else does; None: there is none.
    """

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    new: frozenset[str]
    last_event_id: str | None
    history: int
    named: bool
    end: str | None = None
    tokens: tuple[str, ...] = ()
    ticket: str | None = None

    def opened_by(self, channels: tuple[str, ...], patterns: tuple[str, ...]) -> "StreamRequest":
        """The request as its ticket has it.

        Args:
            channels: those that the ticket names.
            patterns: likewise.

        Raises:
            Problem: 400, one of its new topics is none of them.
        """
        last_event_id = None if self.last_event_id is None else without_proof(self.last_event_id)
        request = replace(self, channels=channels, patterns=patterns, last_event_id=last_event_id)
        request.check_new()
        return request

    def check_new(self) -> None:
        """Check the names of the topics that were added.

        Raises:
            Problem: 400, one of them is no topic of the stream.
        """
        for name in self.new:
            if name not in self.channels and name not in self.patterns:
                raise Problem(400, f"new={name!r} is none of the channels and patterns of this stream.")

    @property
    def topics(self) -> list[tuple[str, bool]]:
        """Each name, and whether it is a pattern."""
        return [(name, False) for name in self.channels] + [(name, True) for name in self.patterns]


class _Asked(NamedTuple):
    """What was asked for, in either form, not checked yet."""

    channels: Sequence[str]
    patterns: Sequence[str]
    new: Sequence[str] = ()
    events: str | None = None
    history: str | None = None
    end: str | None = None
    last_event_id: str | None = None
    ticket: str | None = None


class QueryRequests:
    """The requests of `GET /events?channel=…` and `GET /events/{channel}`.

    Queries seen lately are remembered: the clients of one page ask for the same, and all at once when they come back.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._remembered: dict[bytes, StreamRequest] = {}

    def get(
        self, query_string: bytes, path_channel: str | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> StreamRequest:
        """The request a query makes.

        Raises:
            Problem: 400 with what to change, or 403 for a pattern that isn't allowed.
        """
        request = self._remembered.get(query_string) if path_channel is None else None
        if request is None:
            request = _from_query(self._settings, query_string, path_channel)
            # An id is one client's own, as a token or a ticket is.
            is_own = request.last_event_id is not None or request.ticket is not None or b"token=" in query_string
            is_shared = path_channel is None and not is_own
            if is_shared and len(query_string) <= _MAX_REMEMBERED_BYTES:
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[query_string] = request
        return _with_id(self._settings, request, headers)


def _from_query(settings: Settings, query_string: bytes, path_channel: str | None) -> StreamRequest:
    channels = [] if path_channel is None else [path_channel]
    patterns: list[str] = []
    new: list[str] = []
    single: dict[str, str] = {}
    # jQuery, Datastar and caches add parameters of their own.
    unknown: str | None = None
    for name, value in query_pairs(query_string):
        if name == "channel":
            channels.append(value)
        elif name == "pattern":
            patterns.append(value)
        elif name == "new":
            new.append(value)
        elif name == "token":
            pass  # `gateway.web.credentials` reads it, and there may be several
        elif name in _PARAMETERS:
            if name in single:
                raise Problem(400, f"The parameter {name} stands twice.")
            single[name] = value
        else:
            unknown = name if unknown is None else unknown
    if _strict(single.get("strict")) and unknown is not None:
        raise Problem(400, f"There is no parameter {unknown!r}; known are {', '.join(_PARAMETERS)}.")
    last_event_id = next((single[name] for name in _LAST_EVENT_ID if name in single), None)
    asked = _Asked(
        channels,
        patterns,
        new,
        single.get("events"),
        single.get("history"),
        single.get("end"),
        last_event_id,
        single.get("ticket"),
    )
    return _checked(settings, asked)


def from_json(
    settings: Settings, query_string: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> StreamRequest:
    """The request of `POST /events`.

    Raises:
        Problem: 400 with what to change, or 403 for a pattern that isn't allowed.
    """
    pairs = query_pairs(query_string)
    for name, _ in pairs:
        if name in _PARAMETERS and name not in _POST_PARAMETERS:
            raise Problem(400, f"POST /events takes {name!r} in its JSON body, not in the query.")
    strict = _strict(next((value for name, value in pairs if name == "strict"), None))
    if strict:
        for name, _ in pairs:
            if name not in _POST_PARAMETERS:
                raise Problem(400, f"There is no parameter {name!r}; known are {', '.join(_POST_PARAMETERS)}.")
    value = json_object(body)
    for name in value if strict else ():
        if name not in _MEMBERS:
            raise Problem(400, f"There is no member {name!r}; known are {', '.join(_MEMBERS)}.")
    texts = {name: value.get(name) for name in ("events", "end", "last_event_id", "ticket")}
    for name, member in texts.items():
        if member is not None and not isinstance(member, str):
            raise Problem(400, f"The member {name} must be a string.")
    tickets = [text for name, text in [*pairs, *texts.items()] if name == "ticket" and text is not None]
    if len(tickets) > 1:
        raise Problem(400, "There is more than one ticket.")
    history = value.get("history")
    if history is not None and type(history) is not int:
        raise Problem(400, "The member history must be a whole number.")
    asked = _Asked(
        _strings(value, "channels"),
        _strings(value, "patterns"),
        _strings(value, "new"),
        texts["events"],
        None if history is None else str(history),
        texts["end"],
        texts["last_event_id"],
        tickets[0] if tickets else None,
    )
    request = _with_id(settings, _checked(settings, asked), headers)
    tokens = tuple(_strings(value, "tokens"))
    return replace(request, tokens=tokens) if tokens else request


def query_pairs(query_string: bytes) -> list[tuple[str, str]]:
    """The parameters of a query, decoded.

    Raises:
        Problem: 400, not UTF-8 or too many.
    """
    if not query_string:
        return []
    try:
        if b"%" not in query_string and b"+" not in query_string and query_string.count(b"&") < _MAX_PARAMETERS:
            # The same result without the general way's price, which is a third of what a request costs to check.
            fields = [field.partition("=") for field in query_string.decode().split("&") if field]
            return [(name, value) for name, _, value in fields]
        return parse_qsl(
            query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except UnicodeDecodeError:
        raise Problem(400, "The query is not UTF-8; percent-encode names as UTF-8.") from None
    except ValueError:
        raise Problem(400, f"The query has more than {_MAX_PARAMETERS} parameters.") from None


def no_channel() -> Problem:
    """The error for a stream of nothing."""
    return Problem(400, "Name at least one channel: /events?channel=news")


def topics_from_json(settings: Settings, value: dict[str, Any]) -> StreamRequest:
    """A stream of the channels and patterns that a JSON object names.

    Raises:
        Problem: as `from_json`.
    """
    return _checked(settings, _Asked(_strings(value, "channels"), _strings(value, "patterns")))


def json_object(body: bytes) -> dict[str, Any]:
    """A body that is to be a JSON object with channels.

    Raises:
        Problem: 400, it isn't.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"The body is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise Problem(400, 'The body must be a JSON object such as {"channels": ["news"]}.')
    return value


def _strings(body: dict[str, Any], name: str) -> list[str]:
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Problem(400, f"The member {name} must be an array of strings.")
    return value


def _checked(settings: Settings, asked: _Asked) -> StreamRequest:
    """What was asked for, checked but for the id."""
    unique_channels = tuple(dict.fromkeys(asked.channels))
    unique_patterns = tuple(dict.fromkeys(asked.patterns))
    count = len(unique_channels) + len(unique_patterns)
    if not count and asked.ticket is None:
        raise no_channel()
    if count > settings.max_stream_channels:
        raise Problem(
            400,
            f"{count} channels and patterns are too many for one stream; at most "
            f"{settings.max_stream_channels} are allowed (setting max_stream_channels).",
        )
    if len(unique_patterns) > settings.max_stream_patterns:
        raise Problem(
            400,
            f"{len(unique_patterns)} patterns are too many for one stream; at most "
            f"{settings.max_stream_patterns} are allowed (setting max_stream_patterns).",
        )
    try:
        for channel in unique_channels:
            check_channel(channel, settings.max_channel_bytes)
        for pattern in unique_patterns:
            check_pattern(pattern, settings.max_channel_bytes, settings.allowed_patterns)
    except NotAllowed as error:
        raise Problem(403, f"{error}.") from None
    except BadName as error:
        raise Problem(400, f"{error}.") from None
    if asked.events not in (None, "channel"):
        raise Problem(400, f"events={asked.events!r} is not known; the only value is 'channel'.")
    if asked.end not in (None, "abort"):
        raise Problem(400, f"end={asked.end!r} is not known; the only value is 'abort'.")
    request = StreamRequest(
        unique_channels,
        unique_patterns,
        frozenset(asked.new),
        asked.last_event_id,
        _count(settings, asked.history),
        asked.events == "channel",
        asked.end,
        ticket=asked.ticket,
    )
    if count:  # else they are the ticket's
        request.check_new()
    return request


def _strict(text: str | None) -> bool:
    if text not in (None, "0", "1"):
        raise Problem(400, f"strict={text!r} is not known; it is 1 or 0.")
    return text == "1"


def _count(settings: Settings, text: str | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > settings.replay_events:
        raise Problem(
            400, f"history={text!r} is not possible; it is a number of events up to {settings.replay_events}."
        )
    return int(text)


def _with_id(settings: Settings, request: StreamRequest, headers: Iterable[tuple[bytes, bytes]]) -> StreamRequest:
    """The request with the id that counts, checked."""
    given = request.last_event_id
    # The header wins: a browser repeats the URL it was made with, and its header is newer.
    for name, value in headers:
        if name == b"last-event-id":
            # UTF-8, as the HTML standard sends it (9.2.5, "Last-Event-ID").
            given = value.decode(errors="replace")
    limit = settings.max_id_bytes + MAX_PLACE_BYTES
    if given and len(given.encode(errors="replace")) > limit:
        raise Problem(400, f"Last-Event-ID is longer than {limit} bytes, which no id of this gateway is.")
    return (
        request if given == request.last_event_id and given != "" else replace(request, last_event_id=given or None)
    )
