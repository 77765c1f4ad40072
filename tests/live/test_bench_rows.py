"""Rows of own channels and of new ones, peers, and two versions beside each other, with small loads."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from benchmarks import against
from benchmarks.measurement import Figures, figures, measure
from benchmarks.rows import ROWS, Row
from benchmarks.scenario import Scenario
from benchmarks.stage import Stage
from gateway.bench import server
from gateway.bench.load import Load
from gateway.bench.session import Session

REPOSITORY = Path(__file__).parents[2]
SMALL = Scenario("small", Load(20, 100, 0.2), ("direct",))
OWN = Scenario("own", Load(30, 100, 0.2, processes=2, own_every=10, own_rate=50), ("direct",))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    cores = frozenset(os.sched_getaffinity(0))
    with server.redis_server(cores) as url:
        yield Stage(url, cores, cores, tmp_path_factory.mktemp("rows"), "")


def run(stage: Stage, row: Row, scenario: Scenario) -> Figures:
    with row.start(stage) as target:
        found = asyncio.run(measure(target, scenario, stage.load_cores, lambda *_: None))
    # On a busy machine a quarter of the load follows.
    return figures(scenario, [replace(found, quiet=None)])


@pytest.mark.parametrize("name", ["direct", "portable"])
def test_own_channels_beside_a_shared_one(stage: Stage, name: str) -> None:
    one = run(stage, ROWS[name], OWN)
    # 20 messages to each of 30 streams, and 10 on each of three own channels.
    assert (one.expected, one.received, one.lost, one.faults) == (630, 630, 0, 0)


def test_what_is_missing_on_an_own_channel_is_lost(stage: Stage) -> None:
    """Own channels beyond the tenth stream's are published elsewhere."""

    async def measured() -> tuple[int, int, int]:
        with ROWS["direct"].start(stage) as target:
            async with Session(target, OWN.load, stage.load_cores, lambda *_: None) as session:
                await session.open()
                session._own = [name if number < 10 else f"{name}-x" for number, name in enumerate(session._own)]
                result = await session.publish(100, 0.2, drain_limit=1)
                return result.received, result.lost, result.short_streams

    assert asyncio.run(measured()) == (610, 20, 2)


def test_a_second_load_begins_where_the_first_one_ended(stage: Stage) -> None:
    async def measured() -> list[tuple[int, int, int]]:
        with ROWS["direct"].start(stage) as target:
            async with Session(target, OWN.load, stage.load_cores, lambda *_: None) as session:
                await session.open()
                results = [await session.publish(rate, 0.2) for rate in (50, 100)]
                return [(one.received, one.lost, one.duplicates) for one in results]

    assert asyncio.run(measured()) == [(315, 0, 0), (630, 0, 0)]


def test_new_channels_and_what_they_take(stage: Stage) -> None:
    scenario = Scenario("new", Load(50, 500, 0.1, channels=50, at_once=50), ("direct",), counts_opening=True)
    one = run(stage, ROWS["direct"], scenario)
    assert (one.received, one.lost, one.faults) == (50, 0, 0)
    assert one.opening_cost is not None
    assert one.opening_cost.commands["subscribe"] > 0
    assert "info" not in one.opening_cost.commands


# Peers

# Speaks as much of Mercure's protocol as the row does.
_STUB = """#!{python}
import re, sys
from urllib.parse import parse_qs, urlsplit
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

assert sys.argv[1:3] == ["run", "--config"] and sys.argv[4:] == ["--adapter", "caddyfile"], sys.argv
streams = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b":\\n")
        streams.append((parse_qs(urlsplit(self.path).query)["match"][0], self.wfile))
        self.rfile.read()

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert self.headers["Authorization"].startswith("Bearer ey")
        for topic, stream in streams:
            if topic == form["topic"][0]:
                try:
                    stream.write(b"id: urn:uuid:1\\ndata: " + form["data"][0].encode() + b"\\n\\n")
                except (OSError, ValueError):
                    pass
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"urn:uuid:1")

port = int(re.search(r"http://:(\\d+) ", open(sys.argv[3]).read())[1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_stand_in_for_mercure_is_measured(stage: Stage, tmp_path: Path) -> None:
    stub = tmp_path / "mercure"
    stub.write_text(_STUB.replace("{python}", sys.executable))
    stub.chmod(0o755)
    one = run(replace(stage, programs={"mercure": stub}), ROWS["mercure"], SMALL)
    assert (one.expected, one.received, one.lost, one.faults) == (400, 400, 0, 0)


@pytest.mark.parametrize("name", ["mercure", "centrifugo"])
def test_a_peer_where_it_is_installed(stage: Stage, name: str) -> None:
    place = shutil.which(name)
    if place is None:
        pytest.skip(f"{name} is not on PATH")
    one = run(replace(stage, programs={name: Path(place)}), ROWS[name], SMALL)
    assert (one.expected, one.received, one.lost, one.faults) == (400, 400, 0, 0)


# Two versions

_OTHER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{__file__} in {os.getcwd()}".encode())

HTTPServer(("127.0.0.1", int(os.environ["GATEWAY_PORT"])), Handler).serve_forever()
"""


def test_the_other_checkout_is_what_runs(stage: Stage, tmp_path: Path) -> None:
    package = tmp_path / "gateway"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(_OTHER)
    with against.rows(tmp_path)[against.BEFORE].start(stage) as target:
        assert httpx.get(target.url).text == f"{package / '__main__.py'} in {tmp_path}"
        assert target.publish_url != stage.redis_url, "each version has a Redis of its own"


def test_two_versions_in_one_run(tmp_path: Path) -> None:
    """This one against itself, in the smallest of the loads."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--against", REPOSITORY, "--scenario", "f", "--rounds", "1",
         "--json", tmp_path / "x.json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPU µs/delivery" in done.stdout
    rows = json.loads((tmp_path / "x.json").read_text())["scenarios"]["f"]["rows"]
    assert list(rows) == [against.BEFORE, against.NOW]
    assert all(row["rounds"][0]["result"]["received"] == 500 * 25 for row in rows.values())
