"""The process that holds streams open and checks what they bring.

One epoll loop over bare sockets: an HTTP client library would cost more per event than the server under test.
"""

import errno
import gc
import os
import resource
import select
import socket
import time
from collections import Counter
from typing import Any

from gateway.bench.control import Control
from gateway.bench.errors import ResponseError
from gateway.bench.latencies import Latencies
from gateway.bench.load import OWN_FIRST, share
from gateway.bench.reception import Reception

_READ_BYTES = 65_536
_STATUS_SECONDS = 0.1


class Stream:
    """One connection.

    Args:
        index: its number among all streams of the benchmark.
        channel: number of its request; that of the channel it listens to, if that is one.
        reception: checks what arrives.
    """

    __slots__ = ("channel", "index", "open", "reception", "socket")

    def __init__(self, index: int, channel: int, reception: Reception) -> None:
        self.index = index
        self.channel = channel
        self.reception = reception
        self.open = False
        self.socket = socket.socket()


class Reader:
    """Opens streams and listens, as the command says.

    Args:
        plan: `address` (host, port), `sources` (addresses to connect from, if any), `requests` (the request of
            each channel, or the one for all of them; of each stream, if streams have own channels),
            `headers_in_turn` (each stream's request has one of them, if there are any), `channels_each` (how many
            channels a request names, own ones not counted), `own_every` and `own_channels` (as in `Load`), `at_once`
            (how many streams may be on their way), `first` and `count` (which streams are this reader's).
        control: where orders come from.
    """

    def __init__(self, plan: dict[str, Any], control: Control) -> None:
        self._plan = plan
        self._control = control
        self._requests = [request.encode() for request in plan["requests"]]
        self._headers = [header.encode() for header in plan["headers_in_turn"]]
        self._latencies = Latencies()
        self._streams: list[Stream] = []
        self._by_descriptor: dict[int, Stream] = {}
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._failures: Counter[str] = Counter()
        self._opening = False
        self._under_way = 0
        self._open = 0
        self._closed = 0
        self._received = 0
        self._bytes = 0
        self._last_arrival = 0
        self._began = (0.0, 0.0)
        self._next_status = 0.0

    def run(self) -> None:
        """Until the command says `quit` or is gone."""
        while not self._control.closed:
            for descriptor, event in self._epoll.poll(_STATUS_SECONDS):
                stream = self._by_descriptor.get(descriptor)
                if stream is None:
                    self._obey()
                elif event & select.EPOLLOUT:
                    self._ask(stream)
                else:
                    self._read(descriptor, stream)
            if self._opening:
                self._connect_more()
            now = time.monotonic()
            if now >= self._next_status:
                self._next_status = now + _STATUS_SECONDS
                self._status()

    def _read(self, descriptor: int, stream: Stream) -> None:
        try:
            data = os.read(descriptor, _READ_BYTES)
            now = time.monotonic_ns()
            if not data:
                self._lose(stream, "the server closed the connection")
                return
            new = stream.reception.feed(data, now)
        except BlockingIOError:
            return
        except (OSError, ResponseError) as error:
            self._lose(stream, _reason(error))
            return
        self._bytes += len(data)
        if new:
            self._received += new
            self._last_arrival = now
        if not stream.open and stream.reception.state.begun:
            self._opened(stream)
        if stream.reception.state.ended:
            self._lose(stream, "the server ended the stream")

    # Opening

    def _connect_more(self) -> None:
        while self._under_way < self._plan["at_once"] and len(self._streams) < self._plan["count"]:
            index = self._plan["first"] + len(self._streams)
            channel = index % len(self._requests)
            reception = Reception(
                self._latencies.buckets, self._plan["channels_each"], own=bool(self._plan["own_every"])
            )
            stream = Stream(index, channel, reception)
            self._streams.append(stream)
            descriptor = stream.socket.fileno()
            self._by_descriptor[descriptor] = stream
            self._under_way += 1
            self._epoll.register(descriptor, select.EPOLLOUT)
            stream.socket.setblocking(False)
            if sources := self._plan["sources"]:
                # The port is chosen at connect, when the kernel knows that only the pair must be unique.
                stream.socket.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                stream.socket.bind((sources[len(self._streams) % len(sources)], 0))
            code = stream.socket.connect_ex(tuple(self._plan["address"]))
            if code not in (0, errno.EINPROGRESS):
                self._lose(stream, os.strerror(code))
        if not self._under_way:
            self._opening = False
            self._control.send(kind="opened", at=time.monotonic_ns(), open=self._open, failures=self._failures)

    def _ask(self, stream: Stream) -> None:
        code = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(stream, os.strerror(code))
            return
        request = self._requests[stream.channel]
        if self._headers:
            request = b"%b%b\r\n\r\n" % (request[:-2], self._headers[stream.index % len(self._headers)])
        stream.socket.send(request)
        self._epoll.modify(stream.socket, select.EPOLLIN)

    def _opened(self, stream: Stream) -> None:
        stream.open = True
        self._open += 1
        self._under_way -= 1

    def _lose(self, stream: Stream, reason: str) -> None:
        descriptor = stream.socket.fileno()
        self._epoll.unregister(descriptor)
        del self._by_descriptor[descriptor]
        stream.socket.close()
        self._failures[reason] += 1
        if stream.open:
            self._open -= 1
            self._closed += 1
        else:
            self._under_way -= 1

    # Orders

    def _obey(self) -> None:
        for order in self._control.messages():
            match order["do"]:
                case "open":
                    self._control.send(kind="opening", at=time.monotonic_ns())
                    self._opening = True
                case "begin":
                    self._begin(order["published"], order["own_published"])
                case "report":
                    self._report(order["published"], order["own_published"])
                case "quit":
                    self._control.closed = True

    def _begin(self, published: int, own_published: int) -> None:
        """Count afresh from the messages that follow the first `published` ones."""
        for stream in self._streams:
            stream.reception.ledger.rebase(self._share(stream, published))
            if stream.reception.own:
                stream.reception.own.rebase(OWN_FIRST + self._own_share(stream, own_published))
        self._latencies.buckets.clear()
        self._received = self._bytes = self._last_arrival = 0
        self._began = (time.process_time(), time.monotonic())
        self._status()  # or the command would take the last count for the new one
        self._control.send(kind="begun", open=self._open, failures=self._failures)

    def _share(self, stream: Stream, published: int) -> int:
        """How many of the messages on shared channels were for this stream."""
        channels = 1 if self._plan["own_every"] else len(self._requests)
        return share(stream.channel % channels, channels, published)

    def _own_share(self, stream: Stream, own_published: int) -> int:
        """How many of the messages on own channels were for this stream."""
        place, silent = divmod(stream.index, self._plan["own_every"])
        return 0 if silent else share(place, self._plan["own_channels"], own_published)

    def _report(self, published: int, own_published: int) -> None:
        cpu, wall = time.process_time() - self._began[0], time.monotonic() - self._began[1]
        ledgers = [stream.reception.ledger for stream in self._streams]
        lost = [stream.reception.ledger.lost(self._share(stream, published)) for stream in self._streams]
        received = [ledger.received for ledger in ledgers]
        for place, stream in enumerate(self._streams):
            if own := stream.reception.own:
                ledgers.append(own)
                lost[place] += own.lost(OWN_FIRST + self._own_share(stream, own_published))
                received[place] += own.received
        short = [
            {"stream": stream.index, "received": arrived, "lost": count}
            for stream, arrived, count in zip(self._streams, received, lost, strict=True)
            if count
        ]
        self._control.send(
            kind="report",
            received=sum(received),
            lost=sum(lost),
            duplicates=sum(ledger.duplicates for ledger in ledgers),
            out_of_order=sum(ledger.reordered for ledger in ledgers),
            short_streams=len(short),
            short_examples=short[:5],
            closed=self._closed,
            gaps=sum(stream.reception.gaps for stream in self._streams),
            failures=self._failures,
            latencies=self._latencies.buckets,
            last_arrival=self._last_arrival,
            bytes=self._bytes,
            cpu=cpu,
            wall=wall,
        )
        for stream in self._streams:  # one that comes before the next load is the next report's
            stream.reception.gaps = 0

    def _status(self) -> None:
        self._control.send(kind="status", open=self._open, received=self._received)


_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python's socket module has no name for it before 3.12


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)


def main() -> None:
    # A collection would walk every stream and show up as somebody else's latency; nothing here makes cycles.
    gc.disable()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    control = Control()
    reader = Reader(control.wait(), control)
    control.send(kind="ready")
    reader.run()


if __name__ == "__main__":
    main()
