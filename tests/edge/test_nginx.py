"""nginx in front of three real workers: events reach everybody, and nobody is lost with a worker."""

import asyncio
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from testing.cluster import HASTY, Cluster, streams
from testing.eventsource import EventSource, event_sources, many
from testing.servers import Worker
from testing.waiting import until

pytestmark = pytest.mark.anyio

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


async def spread(workers: list[Worker], total: int) -> list[int]:
    """Streams per worker, once there are `total`."""
    counts: list[int] = []

    async def complete() -> bool:
        counts[:] = [await asyncio.to_thread(streams, worker.url) for worker in workers]
        return sum(counts) == total

    await until(complete, f"{total} streams on {len(workers)} workers")
    return counts


async def publish_until_all_heard(cluster: Cluster, sources: list[EventSource], data: str) -> None:
    async def heard() -> bool:
        await asyncio.to_thread(cluster.publish, "news", data)
        await asyncio.sleep(0.1)  # a pace, so that the events don't pile up
        assert not [source.refusal for source in sources if source.state == "closed"]
        return all(data in source.data for source in sources)

    await until(heard, f"every client hears {data!r}", BACK_AGAIN)


async def test_events_published_once_reach_clients_on_all_workers(cluster: Cluster) -> None:
    events = [f"event {number}" for number in range(50)]
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{cluster.url}/events?channel=news", 30) as sources:
            counts = await spread(cluster.workers, 30)
            assert min(counts) >= 5, f"least_conn gave the workers {counts} streams"
            await until(lambda: all(source.state == "open" for source in sources), "all open")
            for event in events:
                cluster.publish("news", event)
            await until(lambda: all(len(source.data) >= len(events) for source in sources), "all events")
            cluster.publish("news", "the end")
            await until(lambda: all(source.data[-1] == "the end" for source in sources), "the end")
            assert all(source.data == [*events, "the end"] for source in sources)
            assert {source.opened for source in sources} == {1}


async def test_clients_of_a_killed_worker_stream_again(cluster: Cluster) -> None:
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{cluster.url}/events/news", 30) as sources:
            counts = await spread(cluster.workers, 30)
            cluster.workers[0].kill()
            await publish_until_all_heard(cluster, sources, "after the kill")
            assert sum(source.opened - 1 for source in sources) >= counts[0]
            await spread(cluster.workers[1:], 30)

            # A worker that is back gets its share of new streams at once, though no request to it has ended yet.
            await asyncio.to_thread(cluster.revive)
            with event_sources(group, client, f"{cluster.url}/events/news", 15):
                assert (await spread(cluster.workers, 45))[0] >= 10


async def test_clients_of_a_leaving_worker_go_straight_to_the_others(cluster: Cluster) -> None:
    """nginx must not offer them the leaving one again, over connections it has kept."""
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{cluster.url}/events/news", 30) as sources:
            await spread(cluster.workers, 30)
            await asyncio.gather(*(client.get(f"{cluster.url}/healthz") for _ in range(60)))
            leaving = cluster.workers[2]
            leaving.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
            await publish_until_all_heard(cluster, sources, "after it left")
            assert max(source.opened for source in sources) == 2
            await spread(cluster.workers[:2], 30)


async def test_clients_outlive_the_loss_of_all_workers(cluster: Cluster) -> None:
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{cluster.url}/events/news", 30) as sources:
            await spread(cluster.workers, 30)
            for worker in cluster.workers:
                worker.kill()
            # Cut off, reconnected, and sent away by nginx itself.
            await until(lambda: all(source.opened >= 2 for source in sources), "all were told to wait", BACK_AGAIN)
            await asyncio.to_thread(cluster.revive)
            so_far = [source.opened for source in sources]
            await publish_until_all_heard(cluster, sources, "after the blackout")
            # Nobody who came when the workers were up was sent away once more.
            assert max(source.opened - before for source, before in zip(sources, so_far, strict=True)) == 1
            assert min(await spread(cluster.workers, 30)) >= 5


async def test_the_largest_payload_passes_through(cluster: Cluster) -> None:
    payload = "x" * 1_048_576
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{cluster.url}/events/large", 1) as [source]:
            await spread(cluster.workers, 1)
            await until(lambda: source.state == "open", "the stream")
            response = await client.post(f"{cluster.url}/publish/large", content=payload)
            assert response.status_code == 200
            await until(lambda: source.data == [payload], "the payload")
            assert (await client.post(f"{cluster.url}/publish/large", content=payload * 2)).status_code == 413


async def test_an_event_arrives_at_once(cluster: Cluster) -> None:
    """Long before the ping, which would push out what a buffer holds back."""
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{cluster.url}/events/news", 1) as [source]:
            await spread(cluster.workers, 1)
            await until(lambda: source.state == "open", "the stream")
            for count in (1, 2, 3):
                cluster.publish("news", "hello")
                await until(partial(_has, source, count), "the event", timeout=5)


def _has(source: EventSource, count: int) -> bool:
    return len(source.data) == count
