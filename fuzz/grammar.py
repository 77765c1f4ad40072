"""Requests as text on a connection: by HTTP's grammar, with something wrong here and there."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from fuzz.chance import Chance

_METHODS = {
    b"GET": 120, b"POST": 70, b"HEAD": 16, b"OPTIONS": 10, b"PUT": 2, b"DELETE": 2, b"PATCH": 1, b"TRACE": 1,
    b"CONNECT": 2, b"PRI": 1, b"SOURCE": 1, b"M-SEARCH": 1, b"get": 1, b"GE T": 1, b"G\0T": 1, b"": 1, b"QUERY": 1,
    b"POSTX": 1, b"A" * 2000: 1,
}  # fmt: skip
_VERSIONS = {
    b"HTTP/1.1": 250, b"HTTP/1.0": 25, b"HTTP/0.9": 1, b"HTTP/2.0": 1, b"HTTP/1.2": 1, b"HTTP/1.10": 1,
    b"http/1.1": 1,
    b"HTTP/11": 1, b"HTTP/1.": 1, b"": 1, b"HTTP/1.1 ": 1, b"ICE/1.0": 1, b"RTSP/1.0": 1,
}  # fmt: skip
_LINE_ENDS = {b"\r\n": 195, b"\n": 2, b"\r": 1, b"\r\r\n": 1, b"\n\r": 1}
_LENGTHS = [
    b"0", b"1", b"5", b"-1", b"+5", b"05", b"0x5", b"5 ", b" 5", b"5,5", b"5, 6", b"5;5", b"", b"a", b"5\0", b"5_0",
    b"18446744073709551616", b"18446744073709551615", b"9" * 40, b"1e1", b"\xd9\xa5", b"1048577", b"2000000",
]  # fmt: skip
_CODINGS = [
    b"chunked", b"Chunked", b" chunked", b"chunked ", b"\tchunked", b"chunked, chunked", b"gzip, chunked", b"gzip",
    b"chunked, identity", b"identity", b"xchunked", b"chunked;q=1", b"chunked\0", b"\x0bchunked", b"", b"chunke",
    b'"chunked"', b"chunked,", b",chunked",
]  # fmt: skip
_SIZES = [
    b"0", b"1", b"5", b"a", b"FF", b"0x5", b"-1", b"+1", b" 5", b"5 ", b"ffffffffffffffff", b"1" * 20, b"",
    b"g", b"5_",
    b"00000000000000000005", b"5;ext=1", b'5;ext="\r\n"', b"5;" + b"a" * 70_000, b"5\n", b"5\r",
]  # fmt: skip
_ADDRESSES = [
    b"203.0.113.7", b"203.0.113.7:1", b"[2001:db8::1]:80", b"2001:db8::1", b"::ffff:1.2.3.4", b"unknown", b"_hidden",
    b"fe80::1%eth0", b"fe80::1%<x>", b"1.2.3.4.5", b"256.1.1.1", b"[", b"[::1", b"::1]", b"", b",,,", b"for=", b"1",
    b'"', b"127.0.0.1", b"10.0.0.1, " * 40, b"\xff", b"0x7f.1", b"\xd9\xa1.1.1.1", b"1.2.3.4/8", b"::/0",
]  # fmt: skip
_HOSTS = [
    b"localhost", b"127.0.0.1:8080", b"", b"[", b"[::1]", b"[::1", b"a b", b"a/b?c#d", b"a@b", b"\xff", b"a:b:c",
    b"a:99999999", b"%00", b"x" * 5000, b"evil.example", b"..",
]  # fmt: skip
_ORIGINS = [b"null", b"https://app.example", b"https://evil.example", b"http://localhost", b"", b"\xff", b"://", b"a"]
_CONNECTIONS = [b"close", b"keep-alive", b"upgrade", b"Upgrade, keep-alive", b"close, keep-alive", b"", b"x", b"te"]
_CODED = [
    b"gzip", b"gzip;q=0", b"gzip;q=nan", b"gzip;q=1e999", b"GZIP", b"x-gzip;q=0.1", b"br, gzip",
    b"identity;q=0", b"*",
    b";", b"gzip;q=", b"gzip;", b"gzip;q=\xff", b",".join([b"a"] * 3000),
]  # fmt: skip


_CONTROL = bytes([*range(0x20), 0x7F])


class Request(NamedTuple):
    head: bytes
    body: bytes


def channel(chance: Chance) -> bytes:
    """A channel's name in a path or a query."""
    if chance.perhaps(0.85):
        return b"fuzz-%d" % chance.randint(0, 9)
    return quote(chance.garbage(4), safe=chance.one(["", "/.*[]"])).encode()


def position(chance: Chance) -> bytes:
    """What a client may send as Last-Event-ID: of real form, or nearly."""
    if chance.perhaps(0.2):
        return chance.one([b"", b"7", b"2.0.0", b"1790000000123-7", b"1790000000123-9f3a61c2", b"x" * 2400, b"a b"])
    place = b"2.%x.%x" % (10**13 + chance.randint(-5, 10**13), abs(chance.number()) & (1 << 52) - 1)
    for _ in range(chance.one([0, 1, 1, 2, 3, 40])):
        key = bytes(chance.choices(b"abcdefghABCDEFGH01234567-_", k=chance.one([8, 8, 8, 22, 7])))
        place += b".%b%b:%x" % (key, chance.one([b"", b"1", b"ffff"]), chance.randint(0, 9))
    if chance.perhaps(0.1):
        place += b".n" + bytes(chance.choices(b"abcdef012345-_", k=chance.one([6, 12, 5])))
    if chance.perhaps(0.2):
        place = b"own-id~" + place
    return chance.mutated(place) if chance.perhaps(0.3) else place


def query(chance: Chance) -> bytes:
    """Parameters of /events, mostly good ones."""
    parts = [b"channel=" + channel(chance) for _ in range(chance.one([0, 1, 1, 1, 1, 1, 2, 2, 5]))]
    for name, make in _PARAMETERS.items():
        if chance.perhaps(0.05):
            parts.append(name + chance.weighted({b"=": 15, b"": 1}) + make(chance))
    if chance.perhaps(0.02):
        parts += [b"channel=%d" % number for number in range(120)]
    chance.shuffle(parts)
    return chance.weighted({b"&": 20, b";": 1, b"&&": 1}).join(parts)


def _glob(chance: Chance) -> bytes:
    return quote(bytes(chance.choices(b"abf-]^[*?\\fuzz-*", k=chance.randint(0, 7)))).encode()


def _flag(chance: Chance) -> bytes:
    return chance.one([b"0", b"1", b"", b"2", b"true", b"%31"])


_PARAMETERS = {
    b"pattern": _glob,
    b"new": channel,
    b"last_event_id": lambda chance: quote(position(chance)).encode(),
    b"lastEventId": lambda chance: quote(position(chance)).encode(),
    b"history": lambda chance: chance.one([b"%d" % chance.number(), b"3", b"10", b"", b"1e1", b"%D9%A5", b"all"]),
    b"events": lambda chance: chance.one([b"channel", b"channel", b"type", b""]),
    b"strict": _flag,
    b"token": lambda chance: quote(chance.garbage(3)).encode(),
    b"_": lambda chance: b"%d" % chance.number(),
    b"%63hannel": channel,
    b"\xff": channel,
    b"": channel,
}


def target(chance: Chance) -> bytes:
    """What stands behind the method."""
    path = chance.weighted(
        {
            b"/events": 40,
            b"/events/" + channel(chance): 12,
            b"/publish/" + channel(chance): 20,
            b"/healthz": 4,
            b"/readyz": 3,
            b"/metrics": 1,
            b"/": 3,
            b"*": 1,
            b"//events": 1,
            b"/events/../publish/x": 1,
            b"/publish/%2e%2e/events": 1,
            b"http://localhost/events": 2,
            b"http://[/events": 1,
            b"localhost:80": 1,
            b"": 1,
            b"/" + chance.garbage(5): 2,
            b"/" + b"a" * 70_000: 1,
        }
    )
    if path.endswith(b"/events") or chance.perhaps(0.3):
        text = query(chance) if chance.perhaps(0.95) else chance.garbage(8)
        path += chance.weighted({b"?": 40, b"??": 1, b"?#": 1, b"#": 1}) + text if text else b""
    return path


def body(chance: Chance) -> bytes:
    """JSON for POST /events, an envelope or text for POST /publish."""
    match chance.randint(0, 4):
        case 0:
            return b'{"channels":["fuzz-1"]}'
        case 1:
            return b'{"event":"a","data":"b"}'
        case 2:
            return chance.garbage(30)
        case 3:
            return b"x" * chance.one([0, 1, 100, 5000, 70_000])
        case _:
            return chance.mutated(b'{"channels":["fuzz-1","fuzz-2"],"history":3,"last_event_id":"2.1.1"}')


def headers(chance: Chance) -> list[tuple[bytes, bytes]]:
    """Those of a browser or a proxy."""
    given = [(b"Host", chance.one(_HOSTS) if chance.perhaps(0.15) else b"localhost")] if chance.perhaps(0.95) else []
    values: dict[bytes, Callable[[Chance], bytes]] = {
        b"Last-Event-ID": position, b"Origin": lambda chance: chance.one(_ORIGINS),
        b"Accept-Encoding": lambda chance: chance.one(_CODED), b"Cookie": lambda chance: chance.garbage(5),
        b"X-Forwarded-For": lambda chance: chance.one(_ADDRESSES),
        b"Forwarded": lambda chance: b"for=" + chance.one(_ADDRESSES),
        b"Accept": lambda chance: chance.one([b"text/event-stream", b"*/*", b""]),
        b"Connection": lambda chance: chance.one(_CONNECTIONS),
        b"Expect": lambda chance: chance.one([b"100-continue", b"x"]),
        b"Upgrade": lambda chance: chance.one([b"websocket", b"h2c", b"TLS/1.0", b""]),
        b"Content-Type": lambda chance: chance.one([b"application/json", b"text/plain", b"\xff"]),
        b"Access-Control-Request-Method": lambda chance: chance.one([b"GET", b"POST", b"\xff"]),
        b"Access-Control-Request-Headers": lambda chance: chance.garbage(4),
        b"Authorization": lambda chance: b"Bearer " + chance.garbage(3), b"Trailer": lambda chance: b"X-A",
    }  # fmt: skip
    for name, make in values.items():
        if chance.perhaps(0.1):
            given += [(name, make(chance))] * chance.one([1, 1, 1, 1, 1, 1, 2])
    return given


def request(chance: Chance) -> Request:
    """One whole request, in most cases one that could be answered."""
    method = chance.weighted(_METHODS)
    given = headers(chance)
    content = body(chance) if method == b"POST" or chance.perhaps(0.05) else b""
    if content:
        if chance.perhaps(0.75):
            given.append((b"Content-Length", b"%d" % len(content)))
        else:
            given.append((b"Transfer-Encoding", b"chunked"))
            content = chunked(chance, content)
    if chance.perhaps(0.1):
        _contradict(chance, given)
    line = chance.weighted({b" ": 97, b"  ": 1, b"\t": 1, b"": 1}).join(
        [method, _sendable(target(chance)), chance.weighted(_VERSIONS)]
    )
    end = chance.weighted(_LINE_ENDS)
    lines = [line, *(name + b": " + _sendable(value) for name, value in given)]
    if chance.perhaps(0.05):
        lines.insert(chance.randint(1, len(lines)), _odd_header(chance))
    if chance.perhaps(0.01):
        lines += [b"X-%d: %b" % (number, b"a" * chance.one([1, 500])) for number in range(chance.one([99, 101, 300]))]
    return Request(end.join(lines) + end + end, content)


def _sendable(value: bytes) -> bytes:
    # Control characters end most requests at the first check; those come often enough by mutation.
    return value.translate(None, _CONTROL)


def _contradict(chance: Chance, given: list[tuple[bytes, bytes]]) -> None:
    """Say the body's length in another way, or in two."""
    name = chance.one(
        [b"Content-Length", b"Content-Length", b"content-length", b"Content-Length ", b"Content_Length"]
    )
    for _ in range(chance.one([1, 1, 2])):
        if chance.perhaps(0.5):
            given.insert(chance.randint(0, len(given)), (name, chance.one(_LENGTHS)))
        else:
            coding = chance.one([b"Transfer-Encoding", b"transfer-encoding", b"Transfer-Encoding\t", b"TE"])
            given.insert(chance.randint(0, len(given)), (coding, chance.one(_CODINGS)))


def _odd_header(chance: Chance) -> bytes:
    return chance.one(
        [
            b" folded: value", b"\tfolded", b"no colon", b": no name", b"na me: x", b"na\0me: x", b"n\xffme: x",
            b"X: \0",
            b"X:" + b" " * 3000, b"X: " + b"a" * 66_000, b"Y" * 66_000 + b": 1", b"X : y", b"X: a\rb", b"X: a\nb: c",
            b"X:\x7f\x01", b"", b"GET / HTTP/1.1", b"Host: other",
        ]
    )  # fmt: skip


def chunked(chance: Chance, content: bytes) -> bytes:
    """The body in chunks, mostly right ones."""
    parts = []
    while content:
        size = chance.randint(1, max(1, min(len(content), 9000)))
        extension = chance.one([b"", b"", b"", b"", b";a=b", b";"])
        parts.append(b"%x%b\r\n%b\r\n" % (size, extension, content[:size]))
        content = content[size:]
    if chance.perhaps(0.15):
        at = chance.randint(0, len(parts))
        parts.insert(at, chance.one(_SIZES) + b"\r\nhello" + chance.one([b"\r\n", b"\n", b""]))
    if chance.perhaps(0.9):
        trailers = chance.one(
            [b"", b"", b"", b"X-T: 1\r\n", b"Content-Length: 3\r\n", b"X: " + b"a" * 66_000 + b"\r\n"]
        )
        parts.append(chance.one([b"0", b"0", b"0", b"000", b"0;x"]) + b"\r\n" + trailers + b"\r\n")
    return b"".join(parts)
