"""One client address can't take a whole worker, whatever it says of itself."""

from contextlib import ExitStack
from pathlib import Path

import httpx

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.transient import transient
from testing.waiting import wait_until


def test_streams_beyond_the_limit_are_told_to_come_back(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, address_streams=3, trusted_proxies="none") as worker:
        with ExitStack() as stack:
            for number in range(3):
                stack.enter_context(open_stream(worker.url, f"channel-{number}"))
            for made_up in ("203.0.113.7", "203.0.113.8"):
                answer = httpx.get(f"{worker.url}/events?channel=x", headers={"X-Forwarded-For": made_up})
                assert (answer.status_code, transient(answer.text).reason) == (200, "address_limit")
            assert metric(worker, 'turned_away_total{reason="address_limit"}') == 2
        wait_until(lambda: metric(worker, "streams") == 0, "all have left")
        with open_stream(worker.url, "again"):
            pass


def test_clients_whose_proxy_names_no_address_share_its_limit(tmp_path: Path, redis_server: RedisServer) -> None:
    """They had none."""
    values = ["unknown", '"10.0.0.1:1"', "10.0.0.1 3", "010.0.0.1", "10.0.0.1,", "_x"]
    with Worker(tmp_path, redis_server.url, address_streams=len(values)) as worker, ExitStack() as stack:
        for value in values:
            stack.enter_context(open_stream(worker.url, "news", headers={"X-Forwarded-For": value}))
        for value in values:
            answer = httpx.get(f"{worker.url}/events?channel=x", headers={"X-Forwarded-For": value})
            assert transient(answer.text).reason == "address_limit"
        stack.enter_context(open_stream(worker.url, "news", headers={"X-Forwarded-For": "10.0.0.1"}))


def test_behind_a_proxy_each_client_counts_for_itself(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url, address_streams=1) as worker, ExitStack() as stack:
        for client in ("203.0.113.7", "1.1.1.1, 203.0.113.8"):
            stack.enter_context(open_stream(worker.url, "news", headers={"X-Forwarded-For": client}))
        answer = httpx.get(f"{worker.url}/events?channel=x", headers={"X-Forwarded-For": "2.2.2.2, 203.0.113.8"})
        assert transient(answer.text).reason == "address_limit"
