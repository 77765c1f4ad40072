"""Browsers behind nginx: none gives up when workers die."""

from collections.abc import Iterator

import pytest

from testing.browser import CLOSED, CONNECTING, OPEN, Listener, chromium
from testing.cluster import HASTY, Cluster, streams
from testing.waiting import wait_until

BACK_AGAIN = 40.0
"""Seconds within which clients that were cut off must stream again: the longest `retry`, several times."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("nginx"), cors_origins="http://localhost:*", **HASTY) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.settle()
    return running


def all_hear(cluster: Cluster, listeners: list[Listener], data: str) -> None:
    """Publish until each of them has heard it; none may have given up."""

    def heard() -> bool:
        cluster.publish("news", data)
        assert not any(CLOSED in listener.states_at_errors for listener in listeners)
        return all(any(event[1] == data for event in listener.events) for listener in listeners)

    wait_until(heard, f"Chromium hears {data!r}", BACK_AGAIN)


def test_no_browser_gives_up_when_workers_die(cluster: Cluster) -> None:
    """Chromium, four EventSources (six would be all its connections to one host), on all three workers."""
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{cluster.url}/healthz")
        listeners = [Listener(page, "/events?channel=news") for _ in range(4)]
        for listener in listeners:
            listener.wait_open()
        assert all(streams(worker.url) > 0 for worker in cluster.workers)
        all_hear(cluster, listeners, "before")

        cluster.workers[1].kill()
        all_hear(cluster, listeners, "after the kill")
        assert any(listener.states_at_errors for listener in listeners)

        for worker in cluster.workers:
            worker.kill()
        # Cut off, sent away by nginx' own answer, and that one ended.
        wait_until(
            lambda: all(len(listener.states_at_errors) >= 2 for listener in listeners),
            "every EventSource came back to no worker",
            BACK_AGAIN,
        )
        cluster.revive()
        all_hear(cluster, listeners, "after the blackout")
        assert {state for listener in listeners for state in listener.states_at_errors} == {CONNECTING}
        assert {listener.state for listener in listeners} == {OPEN}


def test_pages_of_other_origins_outlive_a_blackout(cluster: Cluster) -> None:
    """An answer without Access-Control-Allow-Origin would close their EventSources forever."""
    other_origin = cluster.url.replace("127.0.0.1", "localhost")
    for worker in cluster.workers:
        worker.kill()
    with chromium() as browser:
        page = browser.new_page()
        # Any page of that origin does, even nginx' own 502.
        page.goto(f"{other_origin}/no-worker")
        listeners = [Listener(page, f"{cluster.url}/events/news") for _ in range(3)]
        wait_until(
            lambda: all(listener.opened and listener.states_at_errors for listener in listeners),
            "every EventSource was sent away once",
        )
        cluster.revive()
        all_hear(cluster, listeners, "hello")
        assert {state for listener in listeners for state in listener.states_at_errors} == {CONNECTING}
