"""`gateway bench`, against real servers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.process import Process
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def redis_server(directory: Path) -> Iterator[RedisServer]:
    with RedisServer(directory) as server:
        yield server


@pytest.fixture(scope="module")
def worker(directory: Path, redis_server: RedisServer) -> Iterator[Worker]:
    with Worker(directory, redis_server.url) as running:
        yield running


def bench(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**clean, **variables},
        check=False,
    )


def test_everything_published_is_accounted_for(redis_server: RedisServer, worker: Worker) -> None:
    run = bench(
        "--url", worker.url, "--publish-redis-url", redis_server.url, "--pid", str(worker.pid),
        "--streams", "50", "--rate", "100", "--duration", "0.2", "--channels", "3", "--processes", "2", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    # 20 messages round 3 channels: 7, 7 and 6; 50 streams: 17, 17 and 16.
    assert found["result"]["expected"] == 7 * 17 + 7 * 17 + 6 * 16
    assert found["result"]["received"] == found["result"]["expected"]
    assert found["result"]["complete"] is True
    assert found["result"]["lost"] == found["result"]["duplicates"] == found["result"]["out_of_order"] == 0
    assert found["result"]["closed"] == 0
    assert found["result"]["latency_ms"]["p50"] > 0
    assert found["result"]["cpu_us_per_delivery"] is not None
    assert found["opening"]["streams"] == 50


def test_messages_that_do_not_arrive_are_lost_and_said_so(redis_server: RedisServer, worker: Worker) -> None:
    """Published where the worker doesn't listen."""
    run = bench(
        "--url", worker.url, "--publish-redis-url", redis_server.url,
        "--streams", "5", "--rate", "100", "--duration", "0.1",
        GATEWAY_CHANNEL_PREFIX="elsewhere:",
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    assert "0 of 50" in run.stdout
    assert "LOSS: 50 deliveries on 5 streams" in run.stdout
    assert "10 messages found no subscriber" in run.stdout


def test_it_starts_everything_itself() -> None:
    run = bench("--streams", "20", "--rate", "50", "--duration", "0.2", "--size", "3000")
    assert run.returncode == 0, run.stderr
    assert "200 of 200" in run.stdout


def test_compressed_streams() -> None:
    run = bench("--streams", "20", "--rate", "50", "--duration", "0.2", "--gzip", "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)["result"]
    assert result["received"] == 200
    assert 200 < result["bytes_per_delivery"] < 500


def test_streams_that_are_turned_away_stop_it() -> None:
    """The gateway turns away with a 200 and a clean end; the others' figures would be those of a smaller load."""
    run = bench("--streams", "10", "--rate", "50", "--duration", "0.2", GATEWAY_MAX_STREAMS="4")
    assert run.returncode == 1
    assert "4 of 10 streams are open: the server ended the stream (6 times)" in run.stderr
    assert not run.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(directory: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "gateway", "bench", "--streams", "5", "--duration", "1000", "--rate", "1"]
    with Process(command, directory / f"bench-{number}.log") as run:
        # redis-server, worker, reader, publisher: then it is in the middle of it (so it is in the warm-up).
        wait_until(lambda: len(children(run.pid)) == 4, "its four children")
        begun = children(run.pid)
        run.send_signal(number)
        assert run.wait() != 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in begun), "all of them gone")
    assert "Traceback" not in run.output


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_comparison_has_a_row_for_each_way() -> None:
    run = bench("--compare", "--rounds", "1", "--streams", "20", "--rate", "40", "--duration", "0.5", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert list(found["rows"]) == ["tutorial", "portable", "direct"]
    for row in found["rows"].values():
        (round_,) = row["rounds"]
        assert round_["quiet"]["received"] == round_["quiet"]["expected"] == 20 * 5
        assert round_["full"]["received"] == round_["full"]["expected"] == 20 * 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--url", "http://127.0.0.1:1", "--streams", "3"), "0 of 3 streams are open: Connection refused (3 times)."),
        (("--url", "https://127.0.0.1:1"), "must begin with http://"),
        (("--url", "http://127.0.0.1:1", "--pid", "4194305"), "The server process 4194305 is not there"),
        (("--pid", "1"), "go with --url"),
        (("--compare", "--url", "http://127.0.0.1:1"), "leave out --url"),
        (("--size", "3"), "--size"),
        (("--size", "70", "--gzip"), "--size 70: with --gzip it must be 100 at least"),
        (("--compare", "--gzip"), "leave out --gzip"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(arguments: tuple[str, ...], complaint: str) -> None:
    run = bench(*arguments)
    assert run.returncode != 0
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr
