"""Compressed streams: smaller, and not a moment later."""

import json
import subprocess
import zlib
from collections.abc import Iterator

import httpx
import pytest

from gateway.web.accept import accepts_gzip
from testing.browser import Listener, chromium
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until


@pytest.fixture(scope="module", params=["direct", "portable"])
def compressing(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    directory = tmp_path_factory.mktemp("gzip")
    with Worker(directory, redis_server.url, delivery=request.param, console=True, ping_interval=0.2) as worker:
        yield worker


def _json(number: int) -> str:
    return json.dumps([{"symbol": f"SYM{place}", "price": place * number, "currency": "EUR"} for place in range(20)])


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=x", False),
        ("identity", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_what_clients_say_they_take(header: str, accepted: bool) -> None:
    assert accepts_gzip([(b"host", b"x"), (b"accept-encoding", header.encode())]) is accepted


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
                payload = _json(number)
                redis_server.client().publish(channel, payload)
                while not plain.endswith(b"data: " + payload.encode() + b"\n\n"):
                    byte = next(pieces)
                    wire += 1
                    plain += decoder.decompress(byte)
            while not plain.endswith(b":\n\n:\n\n"):  # pings come through too
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
            redis_server.client().publish(channel, _json(number))
        stream.next()
        last = stream.last_event_id
    with open_stream(compressing.url, channel, headers={"Last-Event-ID": last}) as stream:
        assert [event.data for event in stream.take(9)] == [_json(number) for number in range(1, 10)]


def test_curl_and_chromium(compressing: Worker, redis_server: RedisServer, channel: str) -> None:
    with (
        subprocess.Popen(
            ["curl", "-sN", "--compressed", f"{compressing.url}/events?channel={channel}"], stdout=subprocess.PIPE
        ) as curl,
        chromium() as browser,
    ):
        try:
            page = browser.new_page()
            page.goto(compressing.url)
            listener = Listener(page, f"/events?channel={channel}")
            listener.wait_open()
            wait_until(lambda: redis_server.client().pubsub_numsub(channel)[0][1] == 1, "subscribed")
            assert curl.stdout is not None
            assert curl.stdout.readline().startswith(b"retry: ")
            for number in range(3):
                redis_server.client().publish(channel, _json(number))
                line = b""
                while not line.startswith(b"data: "):
                    line = curl.stdout.readline()
                assert line.decode() == f"data: {_json(number)}\n"
            wait_until(lambda: len(listener.events) == 3, "all in the browser")
            assert [data for _, data, _ in listener.events] == [_json(number) for number in range(3)]
            assert listener.states_at_errors == []
        finally:
            curl.kill()


def test_it_can_be_turned_off(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        Worker(tmp_path_factory.mktemp("plain"), redis_server.url, gzip=False) as worker,
        open_stream(worker.url, "a", headers={"Accept-Encoding": "gzip"}) as stream,
    ):
        assert "content-encoding" not in stream.response.headers
