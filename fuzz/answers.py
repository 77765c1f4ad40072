"""Reading what came on a connection, as strictly as a client may."""

import re
from typing import NamedTuple

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_SIZE = re.compile(rb"[0-9a-f]{1,8}")
_BODILESS = (204, 304)


class Malformed(Exception):
    """No HTTP client could make sense of it."""


class Answer(NamedTuple):
    """One response.

    Attributes:
        whole: it has come to its end.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


def read_answers(data: bytes) -> list[Answer]:
    """All of them, the last perhaps not whole.

    Raises:
        Malformed: something is no HTTP response, or a response that says two things at once.
    """
    found = []
    while data:
        answer, data = _read_one(data)
        found.append(answer)
        if not answer.whole:
            break
    return found


def _read_one(data: bytes) -> tuple[Answer, bytes]:
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        if not head.startswith(b"HTTP/1.1 "[: len(head)]):
            raise Malformed(f"no response: {head[:200]!r}")
        return Answer(0, {}, b"", False), b""
    line, *lines = head.split(b"\r\n")
    if (status_line := _STATUS.fullmatch(line)) is None:
        raise Malformed(f"no status line: {line[:200]!r}")
    status = int(status_line[1])
    headers: dict[str, str] = {}
    for each in lines:
        if (header := _HEADER.fullmatch(each)) is None:
            raise Malformed(f"no header: {each[:200]!r}")
        name = header[1].decode().lower()
        if name in headers and name in ("content-length", "transfer-encoding", "content-type", "location"):
            raise Malformed(f"{name} stands twice")
        headers[name] = header[2].decode("latin-1")
    if status < 200 or status in _BODILESS:
        return Answer(status, headers, b"", True), rest
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise Malformed("a length and chunks")
        return _read_chunks(status, headers, rest)
    # The answer to HEAD has the head of one with a body. What follows tells.
    if rest.startswith(b"HTTP/1.1 "):
        return Answer(status, headers, b"", True), rest
    if "content-length" not in headers:
        return Answer(status, headers, rest, False), b""  # up to the connection's end
    length = int(headers["content-length"])
    return Answer(status, headers, rest[:length], len(rest) >= length), rest[length:]


def _read_chunks(status: int, headers: dict[str, str], rest: bytes) -> tuple[Answer, bytes]:
    if rest.startswith(b"HTTP/1.1 "):  # to HEAD
        return Answer(status, headers, b"", True), rest
    body, rest, whole = take_chunks(rest)
    return Answer(status, headers, body, whole), rest if whole else b""


def take_chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """What the whole chunks hold that the data begins with, the rest, and whether the last chunk was among them.

    Raises:
        Malformed: they are none.
    """
    parts: list[bytes] = []
    at = 0
    while (end := data.find(b"\r\n", at, at + 20)) >= 0:
        if not _SIZE.fullmatch(data, at, end):
            raise Malformed(f"no size of a chunk: {data[at:end]!r}")
        begin = end + 2
        length = int(data[at:end], 16)
        if len(data) < begin + length + 2:
            break
        if data[begin + length : begin + length + 2] != b"\r\n":
            raise Malformed(f"a chunk of another size than it says: {data[at:end]!r}")
        at = begin + length + 2
        if not length:
            return b"".join(parts), data[at:], True
        parts.append(data[begin : begin + length])
    if len(data) - at >= 20 and end < 0:
        raise Malformed(f"no size of a chunk: {data[at:][:20]!r}")
    return b"".join(parts), data[at:], False
