"""Everything that takes bytes or text apart without a worker. Each function takes any bytes, and raises nothing."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from hypothesis import strategies as st

from fuzz.chance import Chance
from fuzz.contract import Delivered, outcome
from fuzz.grammar import position, query
from fuzz.payloads import payload
from gateway.broker.library import _kept, _lineage
from gateway.broker.wire import load, load_known, load_questions, load_ranges, load_span
from gateway.fanout import sse
from gateway.memory.event import Undeliverable, parse, split_durable
from gateway.memory.glob import compile_glob
from gateway.memory.names import BadName, check_channel, check_pattern
from gateway.memory.place import format_place, parse_place, parse_previous
from gateway.memory.position import Position
from gateway.memory.tick import parse_tick
from gateway.settings import Settings, SettingsError
from gateway.web.accept import accepts_gzip
from gateway.web.address import ClientAddress
from gateway.web.hosts import Hosts
from gateway.web.origins import Origins
from gateway.web.problem import Problem
from gateway.web.stream_request import QueryRequests, from_json
from testing.reference import Reference

_MAX = 1_048_576


@dataclass(frozen=True)
class Decoder:
    """One of them.

    Args:
        check: raises what must not be raised.
        likely: makes input of about the right form.
    """

    check: Callable[[bytes], None]
    likely: Callable[[Chance], bytes]
    cost: int = 1
    """So many times fewer inputs than of the others."""

    @property
    def name(self) -> str:
        return self.check.__name__.removeprefix("check_")

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Any bytes, and such that get further."""
        likely = st.integers(0, 2**32).map(lambda seed: self.likely(Chance(seed)))
        mutated = st.integers(0, 2**32).map(lambda seed: Chance(seed + 1).mutated(self.likely(Chance(seed))))
        return st.one_of(likely, mutated, st.binary(max_size=60), st.text(max_size=30).map(str.encode))


def check_place(data: bytes) -> None:
    """Ids come back as they were, whoever writes them."""
    text = data.decode(errors="replace")
    own, place = parse_place(text)
    parse_previous(text)
    if place is None:
        assert own == text
        return
    era = (place.generation, place.tick)
    parts = [(key, Position(*era, *since)) for key, since in place.since.items()]
    again = parse_place(format_place(era, parts))[1]
    assert again is not None
    assert (again.generation, again.tick) == era
    assert {key: since for key, since in place.since.items() if since != (0, 0)} == again.since


def check_tick(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_tick(data)


def check_event(data: bytes) -> None:
    """What is delivered is what the contract says, and one event."""
    told = outcome(data)
    try:
        _, body = split_durable(data)
        event = parse(body, False, _MAX, 256)
    except Undeliverable:
        assert not isinstance(told, Delivered)
        return
    assert isinstance(told, Delivered)
    events = Reference(sse.body(event)).events
    assert [each.type for each in events] == [told.type or "message"]
    assert told.is_json or events[0].data == told.data


def check_wire(data: bytes) -> None:
    try:
        body = load(data).body
    except ValueError:
        return
    for loader in (load_questions, load_ranges, load_known, load_span):
        with contextlib.suppress(ValueError):
            loader(body)


def check_query(data: bytes) -> None:
    """The query, the path and the header of GET /events."""
    text = data.decode(errors="replace")
    with contextlib.suppress(Problem):
        request = QueryRequests(_settings()).get(data, None, [])
        assert all(0 < len(name.encode()) <= 256 for name, _ in request.topics)
    with contextlib.suppress(Problem):
        assert QueryRequests(_settings()).get(b"", text, [(b"last-event-id", data)]).channels == (text,)


def check_json(data: bytes) -> None:
    """The body of POST /events."""
    with contextlib.suppress(Problem):
        from_json(_settings(), b"", data, [])
    with contextlib.suppress(Problem):
        from_json(_settings(), data, b'{"channels":["a"]}', [])


def check_address(data: bytes) -> None:
    """What proxies say of a client."""
    for settings, header in ((_settings(), b"x-forwarded-for"), (_settings("forwarded"), b"forwarded")):
        ClientAddress(settings).of({"client": ("127.0.0.1", 1), "headers": [(header, data)]})
        ClientAddress(settings).of({"client": (data.decode("latin-1"), 1), "headers": []})


def check_headers(data: bytes) -> None:
    accepts_gzip([(b"accept-encoding", data)])
    Hosts(_settings()).allows(data.decode("latin-1"))
    Origins(_settings()).allows(data.decode("latin-1"))


def check_glob(data: bytes) -> None:
    """Any pattern can be compiled, in a time that doesn't explode, and one without signs matches itself only."""
    glob = compile_glob(data[:300])
    glob.fullmatch(b"a" * 300)
    if not set(data[:300]) & set(b"*?[\\"):
        assert glob.fullmatch(data[:300])
        assert not glob.fullmatch(data[:300] + b"a")


def check_names(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    with contextlib.suppress(BadName):
        check_channel(text, 256)
    with contextlib.suppress(BadName):
        check_pattern(text, 256, ("*", "news.*"))


def check_settings(data: bytes) -> None:
    """Any value of any setting, and any name of one."""
    text = data.decode(errors="replace")
    names = list(Settings.model_fields)
    for name in (names[len(data) % len(names)], names[sum(data) % len(names)], text or "x"):
        with contextlib.suppress(SettingsError):
            Settings.load({name: text})


def check_entries(data: bytes) -> None:
    """What Redis says of keys that anybody may have written."""
    _kept([b"1-1", data, data[::-1], data])
    with contextlib.suppress(ValueError):
        _lineage(data)


@lru_cache
def _settings(header: str = "x-forwarded-for") -> Settings:
    return Settings.load(
        {
            "allowed_patterns": "*",
            "forwarded_header": header,
            "allowed_hosts": "a.example,*.b.example",
            "cors_origins": "https://*.a.example,http://localhost:*",
        }
    )


def _peer_message(chance: Chance) -> bytes:
    span = b"[%d,1,0,1,%d,2,0,%d]" % (chance.number(), chance.number(), chance.number())
    body = chance.one([span, b"[" + span[:-1] + b",[" + span + b"]]]", b'[["a",false,' + span[1:] + b"]", b"null"])
    return b'["ask","fuzz",%d,%b]' % (chance.number(), body)


DECODERS = [
    Decoder(check_place, position),
    Decoder(
        check_tick,
        lambda chance: b"3 %d %d 0123456789abcdef 1:1,2:%d" % (chance.number(), chance.number(), chance.number()),
    ),
    Decoder(check_event, payload),
    Decoder(check_wire, _peer_message),
    Decoder(check_query, query),
    Decoder(
        check_json,
        lambda chance: b'{"channels":["a"],"history":%d,"new":["a"],"last_event_id":"2.1.1"}' % chance.number(),
    ),
    Decoder(
        check_address,
        lambda chance: chance.one([b"1.2.3.4, 127.0.0.1", b'for="[::1]:80";by=a', b"fe80::1%a", b"::ffff:1.2.3.4"]),
    ),
    Decoder(
        check_headers,
        lambda chance: chance.one([b"gzip;q=0.5, br", b"https://x.a.example", b"[::1]:80", b"x.b.example:80"]),
    ),
    Decoder(check_glob, lambda chance: bytes(chance.choices(b"ab-]^[*?\\c\xff", k=chance.randint(0, 30)))),
    Decoder(check_names, lambda chance: chance.garbage(5)),
    Decoder(
        check_settings,
        lambda chance: chance.one([b"1", b"redis://:p@h:1/0?x=y", b"a,b", b"https://a:*", b"1e999", b"10.0.0.0/8"]),
        20,
    ),
    Decoder(check_entries, lambda chance: b"%d.%d.%d" % (chance.number(), chance.number(), chance.number())),
]
