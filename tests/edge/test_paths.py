"""nginx and a worker agree on what a path means, so that no spelling leads past a rule of nginx."""

from collections.abc import Iterator

import httpx
import pytest

from testing.cluster import Cluster
from testing.targets import TARGETS, ask


@pytest.fixture(scope="module", params=[False, True], ids=["trial", "production"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("paths"), production=request.param, console=True) as cluster:
        yield cluster


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_spelling_means_one_thing_to_nginx_and_another_to_a_worker(cluster: Cluster, method: str) -> None:
    production = bool(cluster.nginx.tls_port)
    different, reached = {}, set()
    for target in TARGETS:
        direct = ask(cluster.workers[0].port, method, target)
        through = ask(cluster.nginx.tls_port or cluster.nginx.port, method, target, tls=production)
        # nginx may refuse what a worker would do, and never makes something else of it.
        if through.what not in ("", direct.what):
            different[target] = (direct, through)
        reached.add(through.what.partition(" ")[0])
    assert not different
    if production:
        assert reached == ({"", "stream", "healthz"} if method == "GET" else {""})
    else:
        assert reached == (
            {"", "stream", "healthz", "metrics", "readyz", "console"} if method == "GET" else {"", "published"}
        )


@pytest.mark.parametrize(
    "target",
    ["/publish/../events/a", "/publish/%2e%2e/events/a", "/publish/..%2fevents/a", "/publish/..", "/publish/a/%2E/b"],
)
def test_a_worker_takes_no_dot_segments(cluster: Cluster, target: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert ask(cluster.workers[0].port, method, target).status == 400


@pytest.mark.parametrize("path", ["/healthz/", "/metrics/", "/publish", "/events/"])
def test_nobody_is_sent_elsewhere(cluster: Cluster, path: str) -> None:
    """A redirect would name the host that the request has named."""
    for url in (cluster.workers[0].url, cluster.url):
        answer = httpx.get(url + path, headers={"Host": "attacker.example"}, verify=False)
        assert answer.status_code in (400, 404)
        assert "attacker.example" not in str(answer.headers)
