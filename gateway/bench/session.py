"""One benchmark: streams that are opened once, and loads sent through them."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

from gateway.bench import usage
from gateway.bench.child import Child
from gateway.bench.errors import BenchError
from gateway.bench.latencies import Latencies
from gateway.bench.load import Load, share
from gateway.bench.result import Opening, Result

_OPEN_PATIENCE = 30.0
"""Seconds without a further stream opening, after which the opening has failed."""

_STALL = 5.0
"""Seconds without any delivery, after which what is missing counts as lost."""

_DRAIN_LIMIT = 120.0
"""Seconds after publishing, after which what is missing counts as lost however much still arrives."""

_GRACE = 0.2
"""Seconds to wait for duplicates once everything has arrived."""

_SETTLE_LIMIT = 5.0

Progress = Callable[[str, int, int], None]
"""Told what is going on: its name, how much is done, of how much."""


@dataclass(frozen=True)
class Target:
    """What is measured.

    Args:
        url: of the gateway, or of an endpoint (`{channel}` in it is replaced, else `?channel=` is added).
        redis_url: where to publish.
        prefix: of channel names in Redis.
        pids: processes whose CPU and memory are the server's.
        headers: sent with each request.
        cores: where these processes run, and nobody else should; empty: not known.
    """

    url: str
    redis_url: str
    prefix: str = ""
    pids: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()


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
        self._readers: list[Child] = []
        self._published = 0
        self._children = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.aclose()

    async def open(self) -> Opening:
        """Open all streams, and wait until each has had its first bytes."""
        load = self._load
        before = usage.resident_bytes(self._target.pids)
        for number, count in enumerate(_split(load.streams, load.processes)):
            plan = self._reader_plan(number, sum(_split(load.streams, load.processes)[:number]), count)
            self._readers.append(await self._children.enter_async_context(Child("reader", plan, self._cores)))
        starts = [await reader.ask("open", "opening") for reader in self._readers]
        ends = await self._all_opened()
        memory = None
        if self._target.pids:
            memory = (await self._settled_memory() - before) / load.streams
        seconds = (max(end["at"] for end in ends) - min(start["at"] for start in starts)) / 1e9
        return Opening(load.streams, seconds, memory)

    async def publish(self, rate: float, duration: float) -> Result:
        """Send a load through the open streams, and reconcile what arrived with it."""
        messages = Load(self._load.streams, rate, duration).messages
        first, self._published = self._published, self._published + messages
        expected = self._deliveries(self._published) - self._deliveries(first)
        self._must_all_be_open([await reader.ask("begin", "begun", published=first) for reader in self._readers])
        plan = {
            "redis_url": self._target.redis_url,
            "channels": [self._target.prefix + channel for channel in self._channels],
            "rate": rate,
            "size": self._load.size,
            "first": first,
            "messages": messages,
        }
        async with Child("publisher", plan, self._cores) as publisher:
            wall, cpu, busy = self._usage()
            await publisher.send(do="go")
            published = await self._followed(publisher, expected)
        complete = await self._drained(expected)
        wall, cpu, busy = (after - before for after, before in zip(self._usage(), (wall, cpu, busy), strict=True))
        if complete:
            await asyncio.sleep(_GRACE)
        reports = [await reader.ask("report", "report", published=self._published) for reader in self._readers]
        others = max(0.0, busy - cpu) / wall if self._target.cores else None
        return self._result(expected, published, reports, cpu if self._target.pids else None, others)

    def _reader_plan(self, number: int, first: int, count: int) -> dict[str, Any]:
        parts = urlsplit(self._target.url)
        if parts.scheme != "http" or not parts.hostname:
            raise BenchError(f"--url {self._target.url}: must begin with http:// and name a host.")
        path = parts.path if parts.path not in ("", "/") else "/events"
        if parts.query:
            path += "?" + parts.query
        lines = [f"Host: {parts.netloc}", "Accept: text/event-stream", "User-Agent: gateway-bench"]
        tail = "\r\n".join([" HTTP/1.1", *lines, *self._target.headers]) + "\r\n\r\n"
        # A pair of addresses has 28,000 ports by default: each process connects from an address of its own.
        loopback = parts.hostname in ("127.0.0.1", "localhost")
        return {
            "address": ["127.0.0.1" if loopback else parts.hostname, parts.port or 80],
            "source": f"127.0.0.{2 + number % 250}" if loopback else "",
            "requests": [f"GET {_with_channel(path, channel)}{tail}" for channel in self._channels],
            "first": first,
            "count": count,
        }

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

    async def _settled_memory(self) -> int:
        """The server's memory once it no longer changes: connecting may need some for a moment."""
        memory = usage.resident_bytes(self._target.pids)
        end = time.monotonic() + _SETTLE_LIMIT
        while time.monotonic() < end:
            self._progress("letting memory settle", 0, 0)
            await asyncio.sleep(0.5)
            last, memory = memory, usage.resident_bytes(self._target.pids)
            if abs(memory - last) < 65_536:
                break
        return memory

    async def _followed(self, publisher: Child, expected: int) -> dict[str, Any]:
        report = asyncio.ensure_future(publisher.receive("report", None))
        try:
            while not report.done():
                self._progress("publishing", self._received, expected)
                await asyncio.wait([report], timeout=0.1)
            return report.result()
        finally:
            report.cancel()

    async def _drained(self, expected: int) -> bool:
        """Wait until everything has arrived, or nothing more does."""
        limit = time.monotonic() + _DRAIN_LIMIT
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
        published: dict[str, Any],
        reports: Sequence[dict[str, Any]],
        cpu: float | None,
        others: float | None,
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
            failures=failures,
            unheard=published["unheard"],
            seconds=max(0, last - published["began"]) / 1e9,
            latencies=latencies,
            cpu=cpu,
            others_share=others,
            publisher_late=published["late"],
            reader_share=max(report["cpu"] / report["wall"] for report in reports),
        )

    def _usage(self) -> tuple[float, float, float]:
        """Seconds so far: of the clock, of the server's CPU, of its cores whoever used them."""
        return time.monotonic(), usage.cpu_seconds(self._target.pids), usage.busy_seconds(self._target.cores)

    def _deliveries(self, published: int) -> int:
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


def _with_channel(path: str, channel: str) -> str:
    if "{channel}" in path:
        return path.replace("{channel}", quote(channel))
    return f"{path}{'&' if '?' in path else '?'}channel={quote(channel)}"
