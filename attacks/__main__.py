"""`python -m attacks`: attack a worker in one way after the other, and print the table of docs/security.md."""

import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from attacks.attack import ATTACKS, Attack
from attacks.guards import token
from attacks.measure import STREAMS, Health, Memory, health
from attacks.target import Target
from chaos.document import SECURITY, written
from chaos.document import write as write_between
from gateway.bench.usage import proportional_bytes
from testing.servers import RedisServer, Worker

SETTINGS: dict[str, Any] = {
    "allowed_patterns": "*",
    "address_streams": 1000,
    "address_rate": 500,
    "address_channels": 10_000,
    "linger": 5,
}
"""What is not the default: limits by address, which an operator sets who knows how many people share one."""
_WORKER_CORE, _OTHER_CORE = "0", "1"
_SECONDS = 8.0
_MIB = 1_048_576
_ALWAYS = 10.0
"""Milliseconds that a p99 may be later than twice what it was before: less can't be told from noise here."""


@dataclass(frozen=True)
class Result:
    """What came of an attack.

    Attributes:
        before: the healthy clients, while nobody attacked.
        during: likewise, during the attack.
        at_rest: the worker's memory before, in bytes.
        most: the most it was during the attack.
    """

    attack: Attack
    before: Health
    during: Health
    at_rest: int
    most: int
    alive: bool

    @property
    def faults(self) -> list[str]:
        """What healthy clients must not notice."""
        found = []
        if not self.alive:
            found.append("the worker is gone")
        if self.during.lost:
            found.append(f"{self.during.lost} events lost, twice or out of order")
        if self.during.closed:
            found.append(f"{self.during.closed} streams ended")
        if self.during.p99 > 2 * self.before.p99 + _ALWAYS:
            found.append("p99 above twice that before")
        return found


@click.group(invoke_without_command=True)
@click.option("--attacks", "names", default="", help="Only those whose name contains one of these, with commas.")
@click.option("--seconds", default=_SECONDS, help="How long each is measured.")
@click.option("--write", is_flag=True, help="Write what was measured into the table in docs/security.md.")
@click.pass_context
def main(context: click.Context, names: str, seconds: float, write: bool) -> None:
    """Attack a worker in one way after the other; measure what its healthy clients notice."""
    if context.invoked_subcommand is not None:
        return
    console = Console(stderr=True)
    results = []
    for attack in ATTACKS:
        if not any(name in attack.name for name in names.split(",")):
            continue
        with console.status(attack.name):
            result = play(attack, seconds)
        results.append(result)
        console.print(f"{attack.name}: {', '.join(result.faults) or 'as promised'}", highlight=False)
    Console(width=None if Console().is_terminal else 150).print(_terminal(results))
    if write:
        _write(results)
    context.exit(any(result.faults for result in results))


@main.command(hidden=True)
@click.argument("name")
@click.argument("port", type=int)
@click.argument("redis_port", type=int)
@click.option("--prepare", is_flag=True)
def strike(name: str, port: int, redis_port: int, prepare: bool) -> None:
    """Be the attacker."""
    attack = next(each for each in ATTACKS if each.name == name)
    target = Target(port, redis_port)
    if prepare:
        if attack.prepare is not None:
            asyncio.run(attack.prepare(target))
    else:
        asyncio.run(attack.run(target))


def play(attack: Attack, seconds: float, compare: bool = True) -> Result:
    """One attack on a worker of its own.

    Args:
        seconds: how long healthy clients are measured.
        compare: measure them before the attack, too.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-attacks-")))
        guarded: dict[str, Any] = {}
        for guard in attack.guards:
            guarded |= stack.enter_context(guard())
        headers = [f"Authorization: Bearer {token('bench-*')}"] if guarded else []
        redis = stack.enter_context(RedisServer(directory))
        worker = stack.enter_context(Worker(directory, redis.url, **SETTINGS, **guarded))
        subprocess.run(["taskset", "-a", "-p", "-c", _WORKER_CORE, str(worker.pid)], check=True, capture_output=True)
        before = health(worker, redis, seconds, headers) if compare else Health(0.0, 0, 0)
        strike_at = [sys.executable, "-m", "attacks", "strike", attack.name, str(worker.port), str(redis.port)]
        subprocess.run([*strike_at, "--prepare"], check=True, timeout=120)
        at_rest = proportional_bytes([worker.pid])
        with Memory(worker.pid) as memory:
            attacker = subprocess.Popen(["taskset", "-c", _OTHER_CORE, *strike_at])
            try:
                time.sleep(seconds / 4)  # some begin slowly
                during = health(worker, redis, seconds, headers)
                assert attacker.poll() is None, f"the attack {attack.name!r} broke off"
            finally:
                attacker.kill()
                attacker.wait()
        return Result(attack, before, during, at_rest, memory.most, worker.alive)


_COLUMNS = ["attack", "p99 before", "during", "lost", "streams ended", "memory before", "most", "as promised"]


def _cells(result: Result) -> list[str]:
    return [
        result.attack.name,
        f"{result.before.p99:.1f} ms",
        f"{result.during.p99:.1f} ms",
        f"{result.during.lost}",
        f"{result.during.closed}",
        f"{result.at_rest / _MIB:.0f} MiB",
        f"{result.most / _MIB:.0f} MiB",
        "; ".join(result.faults) or "yes",
    ]


def _terminal(results: list[Result]) -> Table:
    table = Table(title=f"What {STREAMS} healthy clients notice")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("attack", "as promised") else "right")
    for result in results:
        table.add_row(*_cells(result))
    return table


def _write(results: list[Result]) -> None:
    rows = _rows(written("attacks", SECURITY)) | {result.attack.name: _line(_cells(result)) for result in results}
    lines = [_line(_COLUMNS), f"| --- |{' ---: |' * (len(_COLUMNS) - 2)} --- |"]
    lines += [rows[attack.name] for attack in ATTACKS if attack.name in rows]
    lines += ["", *[f"- {attack.name}: {attack.what}" for attack in ATTACKS if attack.name in rows], ""]
    write_between("attacks", "\n".join(lines), SECURITY)


def _rows(text: str) -> dict[str, str]:
    """Those of the table as it is, by attack: what isn't measured this time stays."""
    return {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(prog_name="python -m attacks")
