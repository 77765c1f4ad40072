"""The production variant: TLS, HTTP/2, and nothing open that is not for strangers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.cluster import Cluster
from testing.nginx import Nginx
from testing.process import free_port


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


@pytest.mark.parametrize("path", ["/healthz", "/", "/events", "/events/a/../../x", "/publish/a", "/%00"])
def test_browsers_come_by_tls_from_then_on(cluster: Cluster, client: httpx.Client, path: str) -> None:
    """With errors too, nginx' own and the workers'."""
    assert client.get(cluster.url + path).headers.get_list("strict-transport-security") == ["max-age=31536000"]


def test_plain_http_says_nothing_of_tls(cluster: Cluster) -> None:
    """RFC 6797, 7.2: it must not be sent there."""
    answer = httpx.get(f"http://localhost:{cluster.nginx.port}/healthz")
    assert "strict-transport-security" not in answer.headers


def test_publishing_is_closed(cluster: Cluster, client: httpx.Client) -> None:
    """The workers of this test have it on."""
    assert client.post(f"{cluster.url}/publish/a", content=b"x").status_code == 404
    assert client.post(f"{cluster.url}/publish", content=b"[]").status_code == 404


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


def test_publishing_can_be_opened(tmp_path: Path) -> None:
    """By taking the # from one line, as the comment there says."""
    with Cluster(tmp_path, production=True) as cluster:
        assert httpx.post(f"{cluster.url}/publish/a", content=b"x", verify=False).status_code == 404
        server = tmp_path / "deploy" / "nginx" / "server.conf"
        text = server.read_text()
        assert text.count("#include deploy/nginx/publish.conf;") == 1
        server.write_text(text.replace("#include deploy/nginx/publish.conf;", "include deploy/nginx/publish.conf;"))
        cluster.nginx.kill()
        cluster.nginx.start()
        assert httpx.post(f"{cluster.url}/publish/a", content=b"x", verify=False).status_code == 200


def test_without_workers_browsers_still_learn_of_tls(tmp_path: Path) -> None:
    """The answer to a stream that met no worker has headers of its own, in whose place nginx drops the server's."""
    with Nginx(tmp_path, [free_port()], production=True) as nginx:
        answer = httpx.get(f"{nginx.url}/events/a", verify=False)
    assert answer.status_code == 200
    assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]
