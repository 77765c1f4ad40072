"""`python -m benchmarks`, against real servers, with small loads."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import limit
from benchmarks.measurement import Figures, figures, measure
from benchmarks.rows import ROWS, missing
from benchmarks.scenario import Scenario
from benchmarks.stage import Stage
from gateway.bench.comparison import QUIET
from gateway.bench.load import Load
from testing.nginx import REPOSITORY
from testing.servers import RedisServer

SMALL = Scenario("small", Load(20, 100, 0.2), tuple(ROWS))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("benchmarks")
    cores = frozenset(os.sched_getaffinity(0))
    with RedisServer(directory) as redis:
        yield Stage(redis.url, cores, cores, directory, "")


def run(stage: Stage, name: str, scenario: Scenario = SMALL) -> Figures:
    with ROWS[name].start(stage) as target:
        found = asyncio.run(measure(target, scenario, stage.load_cores, lambda *_: None))
    return figures(scenario, [found])


def deliveries(load: Load, keeps_up: bool) -> int:
    """How many there must be: who is late, as on a machine that has other things to do, is sent a quarter as well."""
    quiet = 0 if keeps_up else replace(load, rate=load.rate * QUIET).messages
    return load.streams * (load.messages + quiet)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.needs <= {"nginx"}])
def test_each_row_delivers_everything(stage: Stage, name: str) -> None:
    one = run(stage, name)
    whole = deliveries(SMALL.load, one.keeps_up)
    assert (one.expected, one.received, one.lost, one.faults) == (whole, whole, 0, 0)
    assert (one.proxy_cpu is not None) == ("nginx" in name)
    assert not list(stage.directory.glob("edge*"))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "nchan" in row.needs])
def test_nchan_where_it_is_installed(stage: Stage, name: str) -> None:
    if not Path("/usr/lib/nginx/modules/ngx_nchan_module.so").exists():
        pytest.skip("libnginx-mod-nchan is not installed, and a test does not download it")
    one = run(stage, name)
    whole = deliveries(SMALL.load, one.keeps_up)
    assert (one.expected, one.received, one.lost, one.faults) == (whole, whole, 0, 0)


def test_the_limit_without_a_compiler(stage: Stage) -> None:
    with limit.limit(stage, cc=None) as target:
        found = asyncio.run(measure(target, SMALL, stage.load_cores, lambda *_: None))
    assert (found.result.received, found.result.lost) == (400, 0)


def test_streams_of_many_channels(stage: Stage) -> None:
    scenario = Scenario("many", Load(10, 200, 0.2, channels=30, all_channels=True), ("direct",))
    one = run(stage, "direct", scenario)
    assert (one.received, one.lost, one.faults) == (deliveries(scenario.load, one.keeps_up), 0, 0)


def test_a_bystander_is_measured_by_itself(stage: Stage) -> None:
    scenario = Scenario("beside", Load(20, 50, 0.4), ("direct",), bystander=Load(2, 50, 0.4))
    one = run(stage, "direct", scenario)
    assert (one.received, one.lost) == (400 + 40, 0)
    assert one.bystander_p99


def test_compressed_streams_are_fewer_bytes_and_no_less(stage: Stage) -> None:
    scenario = Scenario("gzip", Load(20, 100, 0.2, size=1000, varied=True), ("direct", "direct gzip"))
    plain, compressed = (run(stage, name, scenario) for name in scenario.rows)
    whole = deliveries(scenario.load, compressed.keeps_up)
    assert (compressed.received, compressed.lost, compressed.faults) == (whole, 0, 0)
    assert plain.bytes_per_delivery > 1000
    assert compressed.bytes_per_delivery < plain.bytes_per_delivery * 0.45


def test_what_cannot_be_had_is_named(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    lacking = missing(stage.directory)
    assert lacking["nginx"] == "nginx is not installed."


def test_the_command(tmp_path: Path) -> None:
    """Its smallest scenario, one row of it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--scenario", "f", "--row", "direct", "--rounds", "1",
         "--json", tmp_path / "x.json", "--charts", tmp_path],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "500 streams" in done.stdout
    found = json.loads((tmp_path / "x.json").read_text())
    one = found["scenarios"]["f"]["rows"]["direct"]["figures"]
    assert one["received"] == one["expected"] == deliveries(Load(500, 5, 5), one["keeps_up"])
    ElementTree.parse(tmp_path / "cpu-f.svg")


def test_a_small_hundred_thousand() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "hundred-thousand", "--streams", "200", "--duration", "2"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "400 of 400" in done.stdout
    assert "100 %: yes" in done.stdout
    assert "aim: workers" not in done.stdout, "with few streams it is no aim"
