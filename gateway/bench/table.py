"""What a person reads of one benchmark."""

from rich.table import Table

from gateway.bench.load import Load
from gateway.bench.result import PERCENTILES, Opening, Result

_BUSY = 0.9
"""Share of a core above which whoever used it may have been what limited the figures."""

_DISTURBED = 0.1
"""Share of the server's core used by others above which latencies, and the joining of messages, are not its own."""

_LATE = 0.05
"""Seconds behind the schedule above which the load was not what it should have been."""


def result_table(load: Load, opening: Opening, result: Result) -> Table:
    table = Table(show_header=False, title=_title(load), title_justify="left")
    table.add_column(justify="left")
    table.add_column(justify="right")
    rows = {
        "deliveries": f"{result.received:,} of {result.expected:,}",
        "lost": f"{result.lost:,}",
        "duplicates / out of order": f"{result.duplicates:,} / {result.out_of_order:,}",
        "deliveries per second": f"{result.deliveries_per_second:,.0f}",
        "latency " + " / ".join(PERCENTILES): " / ".join(f"{result.latency(name):.1f}" for name in PERCENTILES)
        + " ms",
        "CPU per delivery": microseconds(result.cpu_per_delivery),
        "bytes per delivery": f"{result.bytes_per_delivery:,.0f}",
        "server's share of a core": percent(result.cpu_share),
        "memory per connection": kilobytes(opening.memory),
        "connects per second": f"{opening.rate:,.0f}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def remarks(result: Result) -> list[str]:
    """Sentences about what went wrong, or makes the figures doubtful."""
    said = []
    if result.lost:
        examples = ", ".join(
            f"stream {example['stream']} got {example['received']:,} and lost {example['lost']:,}"
            for example in result.short_examples
        )
        said.append(f"LOSS: {result.lost:,} deliveries on {result.short_streams:,} streams ({examples}).")
    if result.duplicates or result.out_of_order:
        said.append(f"ORDER: {result.duplicates:,} repeated and {result.out_of_order:,} late deliveries.")
    if result.gaps:
        said.append(f"GAPS: streams were told {result.gaps:,} times that they missed something.")
    if result.closed:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in result.failures.items())
        said.append(f"{result.closed:,} streams ended before their time ({reasons}).")
    if result.unheard:
        said.append(f"{result.unheard:,} messages found no subscriber in Redis: is this the gateway's Redis?")
    if result.reader_share > _BUSY:
        said.append(
            f"The busiest reader used {percent(result.reader_share)} of a core, so it may be what limits: "
            "try --processes."
        )
    if result.others_share is not None and result.others_share > _DISTURBED:
        said.append(
            f"Other processes used {percent(result.others_share)} of the server's core: measure on a quiet machine."
        )
    if result.publisher_late > _LATE:
        said.append(f"The publisher was up to {result.publisher_late * 1e3:.0f} ms behind its schedule.")
    if result.cpu is None:
        said.append("No CPU and memory figures: name the server's processes with --pid.")
    return said


def microseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e6:.1f} µs"


def kilobytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 1000:.1f} kB"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _title(load: Load) -> str:
    streams = (
        f"{load.streams:,} streams on {load.channels:,} channels"
        if load.channels > 1
        else (f"{load.streams:,} streams")
    )
    return f"{streams}, {load.rate:g} messages/s of {load.size:,} bytes for {load.duration:g} s"
