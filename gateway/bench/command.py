"""`gateway bench`."""

import asyncio
import json
import os
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import click
from rich.console import Console

from gateway.bench import payload, server
from gateway.bench.comparison import Comparison, warm_up
from gateway.bench.errors import BenchError
from gateway.bench.load import Load
from gateway.bench.machine import SPARE_DESCRIPTORS, descriptors, orderly_end, readers, split_cores
from gateway.bench.progress import progress_bar
from gateway.bench.result import Opening, Result, opening_as_json
from gateway.bench.session import ACCEPT_GZIP, Progress, Session, Target
from gateway.bench.table import remarks, result_table
from gateway.settings import Settings, SettingsError

_COMPARE = {"streams": 4_000, "rate": 10.0, "duration": 5.0}
_SINGLE = {"streams": 1_000, "rate": 20.0, "duration": 5.0}
_GZIP_SIZE = 1_000


@click.command("bench")
@click.option("--streams", type=click.IntRange(1, 200_000), help="Streams to open.  [default: 1000; --compare: 4000]")
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 100_000),
    help="Messages per second, over all channels together.  [default: 20; --compare: 10]",
)
@click.option("--duration", type=click.FloatRange(0.01, 3_600), help="Seconds of publishing.  [default: 5]")
@click.option(
    "--size",
    type=click.IntRange(payload.SMALLEST, 10_000_000),
    help="Bytes of a payload.  [default: 110; --gzip: 1000]",
)
@click.option(
    "--gzip",
    is_flag=True,
    help="Ask for compressed streams. Payloads are then JSON of many fields, for padding compresses to nothing.",
)
@click.option(
    "--channels",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Channels: each stream listens to one, and the messages go round them in turn.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="Reading processes.  [default: as many as the limit of open files asks for]",
)
@click.option(
    "--url",
    help="A gateway that runs already, or any other event stream endpoint: `{channel}` in it is replaced, "
    "else ?channel=… is added. Without it, bench starts a worker on one core and loads it from another.",
)
@click.option(
    "--publish-redis-url",
    help="Redis to publish to.  [default: GATEWAY_REDIS_URL; without that and --url, a redis-server of its own]",
)
@click.option(
    "--pid",
    "pids",
    type=click.IntRange(1),
    multiple=True,
    help="With --url: a server process whose CPU and memory count; repeat for several.",
)
@click.option("--header", "headers", multiple=True, help="With --url: sent with each request, as `Name: value`.")
@click.option(
    "--compare",
    is_flag=True,
    help="Measure a tutorial-style endpoint, the portable and the direct path in turn, and show them in one table.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 99), default=3, show_default=True, help="With --compare: of each row."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    streams: int | None,
    rate: float | None,
    duration: float | None,
    size: int | None,
    gzip: bool,
    channels: int,
    processes: int | None,
    url: str | None,
    publish_redis_url: str | None,
    pids: tuple[int, ...],
    headers: tuple[str, ...],
    compare: bool,
    rounds: int,
    as_json: bool,
) -> None:
    """Open many streams, publish, and reconcile what arrived with what was published.

    Shows deliveries, loss, repetitions, latency from publish to arrival, CPU per delivery and memory per
    connection of the server. Every event of every stream is checked. The exit status is 1 if one is missing,
    repeated or out of order.

    \b
    gateway bench                                          a quick look
    gateway bench --streams 5000 --rate 20 --duration 10   a million deliveries
    gateway bench --gzip                                   compressed streams
    gateway bench --compare                                beside what the tutorials do
    gateway bench --url http://127.0.0.1:8080 --pid 4711   a gateway that runs already
    """
    defaults = _COMPARE if compare else _SINGLE
    load = Load(
        streams=streams or int(defaults["streams"]),
        rate=rate or defaults["rate"],
        duration=duration or defaults["duration"],
        size=size or (_GZIP_SIZE if gzip else 110),
        channels=channels,
        varied=gzip,
    )
    load = replace(load, processes=_processes(load.streams, processes))
    if url is None and (pids or headers):
        raise click.UsageError("--pid and --header go with --url.")
    if url is not None and compare:
        raise click.UsageError("--compare starts its own servers; leave out --url.")
    if gzip and compare:
        raise click.UsageError("--compare has rows that don't compress; leave out --gzip.")
    if load.varied and load.size < payload.SMALLEST_VARIED:
        raise click.UsageError(f"--size {load.size}: with --gzip it must be {payload.SMALLEST_VARIED} at least.")
    if gzip:
        headers += (ACCEPT_GZIP,)
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise BenchError(str(error)) from None

    if compare:
        comparison = Comparison(load, rounds)
        with orderly_end(), split_cores() as (server_core, load_cores), ExitStack() as stack:
            redis_url = _redis(stack, settings, publish_redis_url, load_cores)
            with progress_bar() as progress:
                comparison.run(redis_url, settings.channel_prefix, server_core, load_cores, progress)
        _show_comparison(comparison, as_json)
        ctx.exit(0 if comparison.complete else 1)

    with orderly_end(), ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        if url is not None:
            cores = os.sched_getaffinity(0)
            redis_url = publish_redis_url or settings.redis_url
            target = Target(url, redis_url, settings.channel_prefix, pids, headers)
        else:
            _must_fit_one_worker(load.streams)
            server_core, cores = stack.enter_context(split_cores())
            redis_url = _redis(stack, settings, publish_redis_url, cores)
            worker = stack.enter_context(server.worker(redis_url, server_core, {}))
            target = Target(
                worker.url, redis_url, settings.channel_prefix, (worker.pid,), headers, frozenset(server_core)
            )
        opening, result = asyncio.run(_measure(target, load, cores, progress, warm=url is None))
    _show(load, opening, result, as_json)
    ctx.exit(0 if result.complete else 1)


async def _measure(
    target: Target, load: Load, cores: set[int], progress: Progress, warm: bool
) -> tuple[Opening, Result]:
    if warm:
        await warm_up(target, load, cores, progress)
    async with Session(target, load, cores, progress) as session:
        return await session.open(), await session.publish(load.rate, load.duration)


def _processes(streams: int, wanted: int | None) -> int:
    """As many readers as wanted, or as the limit of open files asks for."""
    needed = readers(streams)
    if wanted is not None and wanted < needed:
        raise click.UsageError(
            f"--processes {wanted}: {streams:,} streams need at least {needed}, because a process may open "
            f"{descriptors():,} files here (ulimit -Hn)."
        )
    return min(streams, wanted or needed)


def _must_fit_one_worker(streams: int) -> None:
    room = descriptors() - SPARE_DESCRIPTORS
    if streams > room:
        raise click.UsageError(
            f"--streams {streams}: one worker holds at most {room:,} here, because a process may open "
            f"{descriptors():,} files (ulimit -Hn); start several workers behind nginx and give --url."
        )


def _redis(stack: ExitStack, settings: Settings, given: str | None, cores: set[int]) -> str:
    """The Redis that was named, else one of our own."""
    if given:
        return given
    if "redis_url" in settings.model_fields_set or not server.have_redis_server():
        return settings.redis_url
    return stack.enter_context(server.redis_server(cores))


def _show(load: Load, opening: Opening, result: Result, as_json: bool) -> None:
    if as_json:
        _print_json({"load": vars(load), "opening": opening_as_json(opening), "result": result.as_json()})
        return
    console = _console(100)
    console.print(result_table(load, opening, result))
    for remark in remarks(result):
        console.print(remark, highlight=False, soft_wrap=True)


def _show_comparison(comparison: Comparison, as_json: bool) -> None:
    if as_json:
        _print_json(comparison.as_json())
        return
    console = _console(120)
    console.print(comparison.table())
    for remark in comparison.remarks():
        console.print(remark, highlight=False, soft_wrap=True)


def _console(width: int) -> Console:
    """Standard output, wide enough for the table where it is a file."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))
