"""Compressed streams in curl and in a browser."""

import subprocess
from collections.abc import Iterator

import pytest

from testing.browser import Listener, chromium
from testing.quotes import quotes
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until


@pytest.fixture(scope="module", params=["direct", "portable"])
def compressing(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    directory = tmp_path_factory.mktemp("gzip")
    with Worker(directory, redis_server.url, delivery=request.param, console=True, ping_interval=0.2) as worker:
        yield worker


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
            assert curl.stdout.readline().startswith(b"id: ")
            assert curl.stdout.readline() == b"event: gateway.open\n"
            while curl.stdout.readline() != b"\n":
                pass
            for number in range(3):
                redis_server.client().publish(channel, quotes(number))
                line = b""
                while not line.startswith(b"data: "):
                    line = curl.stdout.readline()
                assert line.decode() == f"data: {quotes(number)}\n"
            wait_until(lambda: len(listener.events) == 3, "all in the browser")
            assert [data for _, data, _ in listener.events] == [quotes(number) for number in range(3)]
            assert listener.states_at_errors == []
        finally:
            curl.kill()
