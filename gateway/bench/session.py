"""One benchmark: streams that are opened once, and loads sent through them."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import quote, urlsplit

from gateway.bench import usage
from gateway.bench.child import Child
from gateway.bench.errors import BenchError
from gateway.bench.latencies import Latencies
from gateway.bench.load import OWN_FIRST, Load, share
from gateway.bench.result import Opening, Result

_OPEN_PATIENCE = 30.0
"""Seconds without a further stream opening, after which the opening has failed."""

_STALL = 5.0
"""Seconds without any delivery, after which what is missing counts as lost."""

DRAIN_LIMIT = 120.0
"""Seconds after publishing, after which what is missing counts as lost however much still arrives."""

_GRACE = 0.2
"""Seconds to wait for duplicates once everything has arrived."""

_SETTLE_LIMIT = 5.0

PER_SOURCE = 10_000
"""Streams from one address."""

ACCEPT_GZIP = "Accept-Encoding: gzip"

Progress = Callable[[str, int, int], None]
"""Told what is going on: its name, how much is done, of how much."""


@dataclass(frozen=True)
class Target:
    """What is measured.

    Args:
        url: of the gateway, or of an endpoint (`{channel}` in it is replaced, else `?channel=` is added).
        publish_url: where to publish: a Redis, or http://…{channel}… to post to.
        headers_in_turn: one of these is sent with each request, too.
        publish_headers, publish_body: of what is posted; see `gateway.bench.publisher.Http`.
        prefix: of channel names in Redis.
        pids: processes whose CPU and memory are the server's.
        proxy_pids: processes in front of it, whose CPU and memory are counted beside the server's.
        more_urls: of further servers; the reading processes take turns with all of them.
        headers: sent with each request.
        cores: where these processes run, and nobody else should; empty: not known.
    """

    url: str
    publish_url: str
    prefix: str = ""
    pids: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()
    proxy_pids: tuple[int, ...] = ()
    more_urls: tuple[str, ...] = ()
    publish_headers: tuple[str, ...] = ()
    publish_body: str = "{data}"
    headers_in_turn: tuple[str, ...] = ()


class Session:
    """Streams open against a target; an async context manager.

    Args:
        target: what is measured.
        load: how many streams, over how many channels and processes; rate and duration come with `publish`.
        cores: where readers and publisher may run.
        progress: told how far things are.
    """

    def __init__(self, target: Target, load: Load, cores: Collection[int], progress: Progress) -> None:
        self._target = target
        self._load = load
        self._cores = cores
        self._progress = progress
        run = secrets.token_hex(4)  # so that two benchmarks on one Redis don't hear each other
        self._channels = [f"bench-{run}-{number}" for number in range(load.channels)]
        self._own = [f"bench-{run}-user.{number}" for number in range(load.streams if load.own_every else 0)]
        self._readers: list[Child] = []
        self._published = self._own_published = 0
        self._children = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.aclose()

    async def open(self) -> Opening:
        """Open all streams, and wait until each has had its first bytes."""
        load = self._load
        before = self._memory()
        pids = self._target.pids + self._target.proxy_pids
        cpu = usage.cpu_seconds(pids)
        for number, count in enumerate(_split(load.streams, load.processes)):
            plan = self._reader_plan(number, sum(_split(load.streams, load.processes)[:number]), count)
            self._readers.append(await self._children.enter_async_context(Child("reader", plan, self._cores)))
        starts = [await reader.ask("open", "opening") for reader in self._readers]
        ends = await self._all_opened()
        cpu = usage.cpu_seconds(pids) - cpu
        memory = proxy_memory = None
        if self._target.pids:
            after = await self._settled_memory()
            memory, proxy_memory = ((now - then) / load.streams for now, then in zip(after, before, strict=True))
        seconds = (max(end["at"] for end in ends) - min(start["at"] for start in starts)) / 1e9
        return Opening(
            load.streams,
            seconds,
            memory,
            proxy_memory if self._target.proxy_pids else None,
            cpu if self._target.pids else None,
        )

    async def publish(self, rate: float, duration: float, drain_limit: float = DRAIN_LIMIT) -> Result:
        """Send a load through the open streams, and reconcile what arrived with it.

        What goes to own channels is in proportion to the rate.
        """
        load = self._load
        part = replace(load, rate=rate, duration=duration, own_rate=load.own_rate * rate / load.rate)
        first, self._published = self._published, self._published + part.messages
        own_first, self._own_published = self._own_published, self._own_published + part.own_messages
        expected = self._deliveries(self._published) - self._deliveries(first) + part.own_messages
        counts = {"published": first, "own_published": own_first}
        self._must_all_be_open([await reader.ask("begin", "begun", **counts) for reader in self._readers])
        plans = [
            self._publisher_plan(self._channels, rate, first, part.messages)
            | {"all_channels": load.all_channels, "base": 0}
        ]
        if part.own_messages:
            own, own_rate = self._own[:: load.own_every], part.own_messages / duration
            plans.append(
                self._publisher_plan(own, own_rate, own_first, part.own_messages)
                | {"all_channels": False, "base": OWN_FIRST}
            )
        async with AsyncExitStack() as children:
            publishers = [await children.enter_async_context(Child("publisher", plan, self._cores)) for plan in plans]
            before = self._usage()
            for publisher in publishers:
                await publisher.send(do="go")
            published = await self._followed(publishers, expected)
        complete = await self._drained(expected, drain_limit)
        wall, cpu, proxy_cpu, busy = (now - then for now, then in zip(self._usage(), before, strict=True))
        if complete:
            await asyncio.sleep(_GRACE)
        counts = {"published": self._published, "own_published": self._own_published}
        reports = [await reader.ask("report", "report", **counts) for reader in self._readers]
        result = self._result(expected, published, reports)
        return replace(
            result,
            cpu=cpu if self._target.pids else None,
            proxy_cpu=proxy_cpu if self._target.proxy_pids else None,
            others_share=max(0.0, busy - cpu - proxy_cpu) / wall if self._target.cores else None,
        )

    def _publisher_plan(self, channels: Sequence[str], rate: float, first: int, messages: int) -> dict[str, Any]:
        return {
            "url": self._target.publish_url,
            "headers": self._target.publish_headers,
            "body": self._target.publish_body,
            "channels": [self._target.prefix + channel for channel in channels],
            "rate": rate,
            "size": self._load.size,
            "varied": self._load.varied,
            "first": first,
            "messages": messages,
        }

    def _reader_plan(self, number: int, first: int, count: int) -> dict[str, Any]:
        urls = (self._target.url, *self._target.more_urls)
        parts = urlsplit(urls[number % len(urls)])
        if parts.scheme != "http" or not parts.hostname:
            raise BenchError(f"--url {self._target.url}: must begin with http:// and name a host.")
        path = parts.path if parts.path not in ("", "/") else "/events"
        if parts.query:
            path += "?" + parts.query
        lines = [f"Host: {parts.netloc}", "Accept: text/event-stream", "User-Agent: gateway-bench"]
        tail = "\r\n".join([" HTTP/1.1", *lines, *self._target.headers]) + "\r\n\r\n"
        loopback = parts.hostname in ("127.0.0.1", "localhost")
        return {
            "address": ["127.0.0.1" if loopback else parts.hostname, parts.port or 80],
            "sources": _sources(number, count) if loopback else [],
            "requests": [f"GET {target}{tail}" for target in self._request_targets(path)],
            "headers_in_turn": self._target.headers_in_turn,
            "channels_each": len(self._channels) if self._load.all_channels else 1,
            "own_every": self._load.own_every,
            "own_channels": self._load.own_channels,
            "at_once": self._load.at_once,
            "first": first,
            "count": count,
        }

    def _request_targets(self, path: str) -> list[str]:
        if self._own:
            (shared,) = self._channels
            return [_with_channel(_with_channel(path, own), shared) for own in self._own]
        if not self._load.all_channels:
            return [_with_channel(path, channel) for channel in self._channels]
        for channel in self._channels:
            path = _with_channel(path, channel)
        return [path]

    async def _all_opened(self) -> list[dict[str, Any]]:
        """Wait for the readers to be through; raise if a stream is missing."""
        waiting = asyncio.gather(*(reader.receive("opened", None) for reader in self._readers))
        total = self._load.streams
        opened = -1
        patience = 0.0
        try:
            while not waiting.done():
                if self._open > opened:
                    opened, patience = self._open, time.monotonic() + _OPEN_PATIENCE
                    self._progress("opening streams", opened, total)
                if time.monotonic() > patience:
                    raise BenchError(f"{opened:,} of {total:,} streams are open; the others never had a first byte.")
                await asyncio.wait([waiting], timeout=0.1)
            ends: list[dict[str, Any]] = waiting.result()
        finally:
            waiting.cancel()
        self._must_all_be_open(ends)
        return ends

    def _must_all_be_open(self, readers: Sequence[dict[str, Any]]) -> None:
        """Figures of a part of the streams would be figures of another load."""
        opened = sum(reader["open"] for reader in readers)
        if opened < self._load.streams:
            failures: Counter[str] = Counter()
            for reader in readers:
                failures.update(reader["failures"])
            why = ", ".join(f"{reason} ({count:,} times)" for reason, count in failures.most_common(3))
            raise BenchError(f"{opened:,} of {self._load.streams:,} streams are open: {why}.")

    def _memory(self) -> tuple[int, int]:
        """Of the server, and of what stands in front of it."""
        return usage.resident_bytes(self._target.pids), usage.resident_bytes(self._target.proxy_pids)

    async def _settled_memory(self) -> tuple[int, int]:
        """The server's memory once it no longer changes: connecting may need some for a moment."""
        memory = self._memory()
        end = time.monotonic() + _SETTLE_LIMIT
        while time.monotonic() < end:
            self._progress("letting memory settle", 0, 0)
            await asyncio.sleep(0.5)
            last, memory = memory, self._memory()
            if abs(sum(memory) - sum(last)) < 65_536:
                break
        return memory

    async def _followed(self, publishers: Sequence[Child], expected: int) -> list[dict[str, Any]]:
        reports = asyncio.gather(*(publisher.receive("report", None) for publisher in publishers))
        try:
            while not reports.done():
                self._progress("publishing", self._received, expected)
                await asyncio.wait([reports], timeout=0.1)
            found: list[dict[str, Any]] = reports.result()
            return found
        finally:
            reports.cancel()

    async def _drained(self, expected: int, patience: float) -> bool:
        """Wait until everything has arrived, or nothing more does."""
        limit = time.monotonic() + patience
        received, moved = self._received, time.monotonic()
        while received < expected:
            if time.monotonic() > min(limit, moved + _STALL):
                return False
            await asyncio.sleep(0.05)
            self._progress("waiting for the last ones", received, expected)
            if self._received > received:
                received, moved = self._received, time.monotonic()
        return True

    def _result(
        self,
        expected: int,
        published: Sequence[dict[str, Any]],
        reports: Sequence[dict[str, Any]],
    ) -> Result:
        latencies = Latencies()
        failures: Counter[str] = Counter()
        for report in reports:
            latencies.merge(report["latencies"])
            failures.update(report["failures"])

        def total(name: str) -> int:
            return sum(report[name] for report in reports)

        last = max(report["last_arrival"] for report in reports)
        return Result(
            expected=expected,
            received=total("received"),
            lost=total("lost"),
            duplicates=total("duplicates"),
            out_of_order=total("out_of_order"),
            short_streams=total("short_streams"),
            short_examples=tuple(example for report in reports for example in report["short_examples"])[:5],
            closed=total("closed"),
            wire_bytes=total("bytes"),
            failures=failures,
            unheard=sum(report["unheard"] for report in published),
            seconds=max(0, last - min(report["began"] for report in published)) / 1e9,
            latencies=latencies,
            cpu=None,
            others_share=None,
            publisher_late=max(report["late"] for report in published),
            reader_share=max(report["cpu"] / report["wall"] for report in reports),
            gaps=total("gaps"),
        )

    def _usage(self) -> tuple[float, float, float, float]:
        """Seconds so far: of the clock, of the server's CPU and its proxy's, of its cores whoever used them."""
        target = self._target
        return (
            time.monotonic(),
            usage.cpu_seconds(target.pids),
            usage.cpu_seconds(target.proxy_pids),
            usage.busy_seconds(target.cores),
        )

    def _deliveries(self, published: int) -> int:
        if self._load.all_channels:
            return self._load.streams * published
        channels = self._load.channels
        listeners = Counter(stream % channels for stream in range(self._load.streams))
        return sum(count * share(channel, channels, published) for channel, count in listeners.items())

    @property
    def _open(self) -> int:
        return sum(reader.status.get("open", 0) for reader in self._readers)

    @property
    def _received(self) -> int:
        return sum(reader.status.get("received", 0) for reader in self._readers)


def _split(count: int, parts: int) -> list[int]:
    """`count` in parts as equal as they can be."""
    return [count // parts + (number < count % parts) for number in range(parts)]


def _sources(number: int, count: int) -> list[str]:
    """Addresses for a reader to connect from.

    Between two addresses there are 28,000 ports by default, and Linux looks through the odd half of them before it
    tries the even ones: with more than 14,000 streams from one address each connect would take a millisecond.
    """
    return [f"127.0.{number % 250}.{2 + place}" for place in range(-(-count // PER_SOURCE))]


def _with_channel(path: str, channel: str) -> str:
    if "{channel}" in path:
        return path.replace("{channel}", quote(channel))
    return f"{path}{'&' if '?' in path else '?'}channel={quote(channel)}"
