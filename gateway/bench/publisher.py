"""The process that publishes: so many messages per second, each stamped with the time it left.

It speaks Redis' protocol itself: requests are a few bytes, and nothing but the sleep until the next message
stands between the schedule and the socket.
"""

import select
import socket
import ssl
import time
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gateway.bench import payload
from gateway.bench.control import Control

_BATCH = 500
"""Messages written at once when the schedule is behind or faster than the clock can be slept to."""

_PATIENCE = 30.0
"""Seconds for Redis to answer."""

_STATUS_SECONDS = 0.1


class RedisError(Exception):
    """Redis can't be reached or refuses."""


class Redis:
    """A connection that writes commands and reads integer replies."""

    def __init__(self, url: str) -> None:
        self._socket = _connect(url)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def replies(self, wait: float = 0.0) -> list[int]:
        """The replies that are there, after waiting for the first as long as said."""
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
        plan: `redis_url`, `channels` (names, prefix included), `rate`, `size`, `first`, `messages`.
        control: where progress is told.
    """

    def __init__(self, plan: dict[str, Any], control: Control) -> None:
        self._channels = [name.encode() for name in plan["channels"]]
        self._rate: float = plan["rate"]
        self._size: int = plan["size"]
        self._first: int = plan["first"]
        self._messages: int = plan["messages"]
        self._control = control
        self._redis = Redis(plan["redis_url"])

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
                self._redis.send(b"".join(self._publish(number, now) for number in range(sent, due)))
                sent = due
            for receivers in self._redis.replies(_PATIENCE if sent == self._messages else 0.0):
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
        number, channel = divmod(self._first + offset, len(self._channels))
        return command(b"PUBLISH", self._channels[channel], payload.encode(number, now, self._size))


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
        control.send(kind="failed", reason=f"Publishing to Redis at {_place(plan['redis_url'])}: {error}.")


if __name__ == "__main__":
    main()
