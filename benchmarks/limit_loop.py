"""limit.c in Python, for where there is no compiler: `python -m benchmarks.limit_loop PORT REDIS_PORT`.

One thing after the other, as there.
"""

import resource
import select
import socket
import sys
import time

import hiredis

from gateway.bench.publisher import command

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n: hi\n\r\n"
_BEFORE = b"id: 2.163f149516efc.6f.XtchukSj:1\ndata: "


class Limit:
    """Writes every message of Redis to every connection."""

    def __init__(self, port: int, redis_port: int) -> None:
        self._redis = socket.create_connection(("127.0.0.1", redis_port))
        self._redis.sendall(command(b"PSUBSCRIBE", b"*"))
        self._parser = hiredis.Reader()
        self._door = socket.create_server(("127.0.0.1", port), backlog=16_384)
        self._poller = select.epoll()
        for one in (self._redis, self._door):
            self._poller.register(one, select.EPOLLIN)
        self._clients: dict[int, socket.socket] = {}
        self._streams: dict[int, socket.socket] = {}

    def run(self) -> None:
        """For ever."""
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._redis.fileno():
                    self._hear()
                elif descriptor == self._door.fileno():
                    self._accept()
                else:
                    self._listen_to(descriptor)

    def _hear(self) -> None:
        data = self._redis.recv(1 << 20)
        if not data:
            sys.exit()
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not False:
            if answer[0] == b"pmessage":
                body = _BEFORE + answer[3] + b"\n\n"
                chunk = b"%x\r\n%s\r\n" % (len(body), body)
                for stream in self._streams.values():
                    _write_all(stream, chunk)

    def _accept(self) -> None:
        client, _ = self._door.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[client.fileno()] = client
        self._poller.register(client, select.EPOLLIN)

    def _listen_to(self, descriptor: int) -> None:
        client = self._clients[descriptor]
        try:
            data = client.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._poller.unregister(descriptor)
            self._streams.pop(descriptor, None)
            del self._clients[descriptor]
            client.close()
        elif data.endswith(b"\r\n\r\n"):
            _write_all(client, _HEAD)
            self._streams[descriptor] = client


def _write_all(stream: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[stream.send(data) :]
        except BlockingIOError:
            time.sleep(0.001)  # a slow client; select could not name a descriptor above 1,023
        except OSError:
            return  # gone; its end is read later


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Limit(int(sys.argv[1]), int(sys.argv[2])).run()
