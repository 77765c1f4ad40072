"""The production variant: TLS, HTTP/2, and nothing open that is not for strangers."""

import subprocess
from collections.abc import Iterator

import httpx
import pytest

from testing.cluster import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("tls"), production=True, console=True) as cluster:
        yield cluster


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    # What is shown here is HTTP/2, not trust: the certificate was made a second ago.
    with httpx.Client(http2=True, verify=False) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/readyz", "/console", "/metrics/", "//metrics", "/events/../metrics"]
)
def test_strangers_do_not_see_inside(cluster: Cluster, client: httpx.Client, path: str) -> None:
    response = client.get(cluster.url + path)
    assert response.status_code == 404
    assert "gateway_" not in response.text


def test_what_clients_use_is_open(cluster: Cluster, client: httpx.Client) -> None:
    response = client.get(f"{cluster.url}/healthz")
    assert (response.status_code, response.http_version) == (200, "HTTP/2")


def test_plain_http_is_sent_to_https(cluster: Cluster) -> None:
    response = httpx.get(f"http://localhost:{cluster.nginx.port}/events?channel=a")
    assert response.status_code == 301
    assert response.headers["Location"] == "https://localhost/events?channel=a"


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_an_event_arrives_at_once(cluster: Cluster, http2: bool) -> None:
    """Long before the ping, which would push out what a buffer holds back."""
    with (
        httpx.Client(http2=http2, verify=False, timeout=5) as client,
        client.stream("GET", f"{cluster.url}/events/news") as response,
    ):
        assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        lines = response.iter_lines()
        assert "event: gateway.open" in (next(lines), next(lines))
        while next(lines):
            pass
        for count in range(3):
            cluster.publish("news", f"event {count}")
            assert next(line for line in lines if line.startswith("data:")) == f"data: event {count}"


def test_curl_speaks_http2_to_it(cluster: Cluster) -> None:
    curl = ["curl", "--silent", "--insecure", "--http2", "--max-time", "10", "--write-out", "%{http_version}"]
    answer = subprocess.run([*curl, f"{cluster.url}/healthz"], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("2")
