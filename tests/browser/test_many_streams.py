"""A browser and HTTP/2."""

from collections.abc import Iterator

import pytest

from testing.browser import CONNECTING, Listener, chromium
from testing.cluster import Cluster, streams
from testing.waiting import wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("tls"), production=True, console=True) as cluster:
        yield cluster


def test_a_browser_holds_more_than_six_streams_and_loses_none(cluster: Cluster) -> None:
    """Over HTTP/1.1 the seventh EventSource of a browser would wait until another is closed."""
    with chromium() as browser:
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(f"{cluster.url}/healthz")
        listeners = [Listener(page, "/events?channel=news") for _ in range(20)]
        for listener in listeners:
            listener.wait_open()
        assert sum(streams(worker.url) for worker in cluster.workers) == 20

        def all_hear(data: str) -> bool:
            cluster.publish("news", data)
            return all(any(event[1] == data for event in listener.events) for listener in listeners)

        wait_until(lambda: all_hear("before"), "all 20 hear an event")
        for worker in cluster.workers:
            worker.kill()
        wait_until(
            lambda: all(len(listener.states_at_errors) >= 2 for listener in listeners),
            "every EventSource came back to no worker",
            timeout=40,
        )
        cluster.revive()
        wait_until(lambda: all_hear("after"), "all 20 hear an event again", timeout=40)
        assert {state for listener in listeners for state in listener.states_at_errors} == {CONNECTING}
