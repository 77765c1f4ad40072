"""Compressed streams: smaller, and not a moment later."""

import zlib
from collections.abc import Iterator

import httpx
import pytest

from testing.quotes import quotes
from testing.servers import RedisServer, Worker
from testing.stream import open_stream


@pytest.fixture(scope="module", params=["direct", "portable"])
def compressing(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    directory = tmp_path_factory.mktemp("gzip")
    with Worker(directory, redis_server.url, delivery=request.param, console=True, ping_interval=0.2) as worker:
        yield worker


def test_every_event_is_there_at_once_byte_by_byte(
    compressing: Worker, redis_server: RedisServer, channel: str
) -> None:
    """Read without a client library: an event is published only when the one before was decoded."""
    request = httpx.Request("GET", f"{compressing.url}/events?channel={channel}", headers={"Accept-Encoding": "gzip"})
    with httpx.Client(timeout=20) as client:
        response = client.send(request, stream=True)
        try:
            assert response.headers["content-encoding"] == "gzip"
            assert "accept-encoding" in response.headers["vary"].lower()
            decoder = zlib.decompressobj(31)
            plain = b""
            wire = 0
            pieces = response.iter_raw(1)
            for number in range(20):
                payload = quotes(number)
                redis_server.client().publish(channel, payload)
                while not plain.endswith(b"data: " + payload.encode() + b"\n\n"):
                    byte = next(pieces)
                    wire += 1
                    plain += decoder.decompress(byte)
            while not plain.endswith(b"\n\n:\n:\n"):  # pings come through too
                plain += decoder.decompress(next(pieces))
        finally:
            response.close()
    assert wire < len(plain) * 0.45


def test_clients_that_do_not_take_it_get_none(compressing: Worker, channel: str) -> None:
    with open_stream(compressing.url, channel, headers={"Accept-Encoding": "identity"}) as stream:
        assert "content-encoding" not in stream.response.headers


def test_a_replay_is_compressed_too(compressing: Worker, redis_server: RedisServer, channel: str) -> None:
    with open_stream(compressing.url, channel) as stream:
        assert stream.response.headers["content-encoding"] == "gzip"
        for number in range(10):
            redis_server.client().publish(channel, quotes(number))
        stream.next()
        last = stream.last_event_id
    with open_stream(compressing.url, channel, headers={"Last-Event-ID": last}) as stream:
        assert [event.data for event in stream.take(9)] == [quotes(number) for number in range(1, 10)]


def test_it_can_be_turned_off(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        Worker(tmp_path_factory.mktemp("plain"), redis_server.url, gzip=False) as worker,
        open_stream(worker.url, "a", headers={"Accept-Encoding": "gzip"}) as stream,
    ):
        assert "content-encoding" not in stream.response.headers
