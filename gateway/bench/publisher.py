"""The process that publishes: so many messages per second, each stamped with the time it left.

It speaks Redis' protocol itself (or HTTP, to servers that take their messages that way): requests are a few bytes,
and nothing but the sleep until the next message stands between the schedule and the socket.
"""

import re
import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit

from gateway.bench import payload
from gateway.bench.control import Control

_BATCH = 500
"""Messages written at once when the schedule is behind or faster than the clock can be slept to."""

_PATIENCE = 30.0
"""Seconds for Redis to answer."""

_STATUS_SECONDS = 0.1

_PLACES = re.compile(rb"\{(channel|data|quoted)\}")


class RedisError(Exception):
    """Redis (or the server published to over HTTP) can't be reached or refuses."""


class Destination(Protocol):
    """Where messages go."""

    def publish(self, channel: str, data: bytes) -> bytes:
        """The request that publishes this."""

    def send(self, data: bytes) -> None:
        """Send requests."""

    def replies(self, wait: float = 0.0) -> list[int]:
        """The replies that are there, after waiting for the first as long as said: of each, how many got it."""


class Redis:
    """A connection that writes commands and reads integer replies."""

    def __init__(self, url: str) -> None:
        self._socket = _connect(url)
        self._buffer = b""

    def publish(self, channel: str, data: bytes) -> bytes:
        return command(b"PUBLISH", channel.encode(), data)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def replies(self, wait: float = 0.0) -> list[int]:
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not pending and not select.select([self._socket], [], [], wait)[0]:
            if wait:
                raise RedisError(f"Redis did not answer for {wait:g} s")
            return []
        data = self._socket.recv(65_536)
        if not data:
            raise RedisError("Redis closed the connection")
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if not line.startswith(b":"):
                raise RedisError(f"Redis answered {line.decode(errors='replace')!r}")
        return [int(line[1:]) for line in lines]


class Http:
    """A connection that posts messages, one request behind the other without waiting for the answers.

    Args:
        url: where to post; `{channel}` in it is replaced.
        headers: sent with each request.
        body: what is posted; `{channel}`, `{data}` and `{quoted}` (the data, percent-encoded) in it are replaced.
    """

    _ANSWER = re.compile(
        rb"HTTP/1\.1 (\d+)[^\r\n]*\r\n(?:[^\r\n]+\r\n)*?(?i:content-length): *(\d+)\r\n(?:[^\r\n]+\r\n)*\r\n"
    )

    def __init__(self, url: str, headers: Sequence[str] = (), body: str = "{data}") -> None:
        parts = urlsplit(url)
        self._headers = "".join(f"{header}\r\n" for header in headers)
        self._body = body.encode()
        self._target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), _PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def publish(self, channel: str, data: bytes) -> bytes:
        target = self._target.replace("{channel}", quote(channel))
        parts = {b"channel": channel.encode(), b"data": data, b"quoted": quote(data, safe="").encode()}
        # In one go, for what is put in may look like a place to put something in.
        body = _PLACES.sub(lambda match: parts[match[1]], self._body)
        head = f"POST {target} HTTP/1.1\r\nHost: {self._host}\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def replies(self, wait: float = 0.0) -> list[int]:
        if not select.select([self._socket], [], [], wait)[0]:
            if wait:
                raise RedisError(f"the server did not answer for {wait:g} s")
            return []
        data = self._socket.recv(65_536)
        if not data:
            raise RedisError("the server closed the connection")
        self._buffer += data
        answers = 0
        while answer := self._ANSWER.match(self._buffer):
            end = answer.end() + int(answer[2])
            if len(self._buffer) < end:
                break
            if not answer[1].startswith(b"2"):
                raise RedisError(f"the server answered {answer[1].decode()}")
            self._buffer = self._buffer[end:]
            answers += 1
        return [1] * answers


def command(*words: bytes) -> bytes:
    """A command in Redis' protocol."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    connection: socket.socket
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PATIENCE)
        connection.connect(unquote(parts.path))
    else:
        address = parts.hostname or "127.0.0.1", parts.port or 6379
        connection = socket.create_connection(address, _PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme == "rediss":
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_cert_reqs") == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(connection, server_hostname=parts.hostname)
    if parts.password:
        login = [unquote(word).encode() for word in (parts.username, parts.password) if word]
        connection.sendall(command(b"AUTH", *login))
        answer = connection.recv(4096)
        if answer != b"+OK\r\n":
            raise RedisError(f"Redis answered {answer.decode(errors='replace').strip()!r}")
    return connection


class Publisher:
    """Publishes messages `first` … `first + messages - 1`, round the channels in turn.

    Args:
        plan: `url` (of Redis, or http:// to post to), `headers` and `body` (see `Http`), `channels` (names, prefix
            included), `all_channels` (whether numbers are those of all channels together), `rate`, `size`, `varied`
            (which kind of payload), `first`, `messages`, `base` (the number of a channel's first message).
        control: where progress is told.
    """

    def __init__(self, plan: dict[str, Any], control: Control) -> None:
        self._channels: list[str] = plan["channels"]
        self._together: bool = plan["all_channels"]
        self._rate: float = plan["rate"]
        self._size: int = plan["size"]
        self._encode = payload.encode_varied if plan["varied"] else payload.encode
        self._first: int = plan["first"]
        self._messages: int = plan["messages"]
        self._base: int = plan["base"]
        self._control = control
        self._destination = _destination(plan)

    def run(self) -> None:
        """Publish all on schedule and report.

        The schedule does not wait for the server: a slow one gets no fewer messages, it gets behind.
        """
        began = time.monotonic_ns()
        step = 1e9 / self._rate
        sent = answered = heard = unheard = late = 0
        next_status = 0.0
        while answered < self._messages:
            now = time.monotonic_ns()
            due = min(self._messages, int((now - began) / step) + 1, sent + _BATCH)
            if due > sent:
                late = max(late, now - began - int(sent * step))
                self._destination.send(b"".join(self._publish(number, now) for number in range(sent, due)))
                sent = due
            for receivers in self._destination.replies(_PATIENCE if sent == self._messages else 0.0):
                answered += 1
                heard += receivers
                unheard += not receivers
            if time.monotonic() >= next_status:
                next_status = time.monotonic() + _STATUS_SECONDS
                self._control.send(kind="status", sent=sent)
            if sent < self._messages:
                time.sleep(max(0.0, (began + sent * step - time.monotonic_ns()) / 1e9))
        self._control.send(kind="report", began=began, receivers=heard, unheard=unheard, late=late / 1e9)

    def _publish(self, offset: int, now: int) -> bytes:
        together = self._first + offset
        number, channel = divmod(together, len(self._channels))
        data = self._encode(self._base + (together if self._together else number), now, self._size)
        return self._destination.publish(self._channels[channel], data)


def _destination(plan: dict[str, Any]) -> Destination:
    if plan["url"].startswith("http:"):
        return Http(plan["url"], plan["headers"], plan["body"])
    return Redis(plan["url"])


def _place(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def main() -> None:
    control = Control()
    plan = control.wait()
    try:
        publisher = Publisher(plan, control)
        control.send(kind="ready")
        control.wait()
        publisher.run()
    except (OSError, RedisError) as error:
        control.send(kind="failed", reason=f"Publishing to {_place(plan['url'])}: {error}.")


if __name__ == "__main__":
    main()
