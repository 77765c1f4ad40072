"""The compose files for real: built, started, scaled, hurt and taken down."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.certificate import make_certificate
from testing.compose import Compose, docker, docker_is_missing
from testing.eventsource import EventSource, event_sources, many
from testing.process import free_port
from testing.targets import TARGETS, ask
from testing.waiting import until

pytestmark = [
    pytest.mark.anyio,
    # The first build fetches every dependency.
    pytest.mark.timeout(600),
]

BACK_AGAIN = 60.0
"""Seconds within which clients stream again: a drain of 10 s, the longest `retry`, and a slow machine."""

_METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    if reason := docker_is_missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def url(address: str) -> str:
    return f"http://{address}"


@pytest.fixture(scope="module")
def compose(address: str) -> Iterator[Compose]:
    """`docker compose up` with the project's own file, and proof that `down` leaves nothing."""
    with Compose({"EDGE_ADDRESS": address}) as compose:
        compose("up", "--build", "--detach", "--wait")
        yield compose
    assert compose.leftovers() == ""


def streams(container: str) -> int:
    text = docker("exec", container, "python", "-c", _METRICS)
    value = re.search(r"^gateway_streams ([\d.]+)$", text, re.MULTILINE)
    assert value is not None, text
    return int(float(value[1]))


async def per_worker(compose: Compose) -> list[int]:
    return [await asyncio.to_thread(streams, container) for container in compose.containers("worker")]


async def busiest(compose: Compose) -> str:
    """The worker whose end would be noticed by most."""
    counts = await per_worker(compose)
    assert max(counts) >= 3
    return compose.containers("worker")[counts.index(max(counts))]


async def start_again(container: str) -> None:
    def healthy() -> bool:
        return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"

    await asyncio.to_thread(docker, "start", container)
    await until(lambda: asyncio.to_thread(healthy), "the worker is healthy again", BACK_AGAIN)


async def publish(compose: Compose, data: str) -> None:
    await asyncio.to_thread(compose, "exec", "-T", "redis", "redis-cli", "PUBLISH", "news", data)


async def publish_until_all_hear(compose: Compose, sources: list[EventSource], data: str) -> None:
    async def heard() -> bool:
        await publish(compose, data)
        assert not [source.refusal for source in sources if source.state == "closed"]
        return all(data in source.data for source in sources)

    await until(heard, f"every client hears {data!r}", BACK_AGAIN)


async def all_open(sources: list[EventSource]) -> None:
    await until(lambda: all(source.state == "open" for source in sources), "all streams open")


def test_the_console_is_the_first_thing_one_sees(compose: Compose, url: str) -> None:
    response = httpx.get(url)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    assert len(compose.containers("worker")) == 2


async def test_redis_cli_reaches_clients_outside(compose: Compose, url: str) -> None:
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{url}/events?channel=news", 10) as sources:
            await all_open(sources)
            assert min(await per_worker(compose)) >= 3
            await publish(compose, "hello")
            await until(lambda: all(source.data == ["hello"] for source in sources), "all hear hello")
            for payload in ("by HTTP", "x" * 1_048_576):
                assert (await client.post(f"{url}/publish/news", content=payload)).status_code == 200
            await until(
                lambda: all(list(map(len, source.data)) == [5, 7, 1_048_576] for source in sources), "all hear all"
            )


async def test_more_workers_while_it_runs(compose: Compose, url: str) -> None:
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{url}/events/news", 10) as early:
            await all_open(early)
            before = set(compose.containers("worker"))
            await asyncio.to_thread(compose, "up", "--detach", "--wait", "--scale", "worker=4")
            assert before < set(compose.containers("worker"))
            assert len(compose.containers("worker")) == 4

            late: list[EventSource] = []

            async def new_ones_are_used() -> bool:
                late.append(EventSource(client, f"{url}/events/news"))
                tasks.append(group.create_task(late[-1].run()))
                await until(lambda: late[-1].state == "open", "the new stream")
                return min(await per_worker(compose)) >= 2

            tasks: list[asyncio.Task[None]] = []
            try:
                await until(new_ones_are_used, "new clients on the new workers")
                await publish(compose, "to four")
                await until(lambda: all("to four" in one.data for one in [*early, *late]), "all hear it")
                assert {source.opened for source in early} == {1}, "scaling cut streams off"
            finally:
                for task in tasks:
                    task.cancel()


async def test_a_worker_may_leave(compose: Compose, url: str) -> None:
    """`docker stop` drains it within the grace period; its clients go on elsewhere."""
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{url}/events/news", 12) as sources:
            await all_open(sources)
            leaving = await busiest(compose)
            # By SIGTERM, and with the time docker-compose.yml gives it.
            await asyncio.to_thread(docker, "stop", leaving)
            assert docker("inspect", "--format", "{{.State.ExitCode}}", leaving).strip() == "0"
            await publish_until_all_hear(compose, sources, "after the stop")
            await start_again(leaving)


async def test_a_worker_may_be_killed(compose: Compose, url: str) -> None:
    async with many() as client, asyncio.TaskGroup() as group:
        with event_sources(group, client, f"{url}/events/news", 12) as sources:
            await all_open(sources)
            killed = await busiest(compose)
            await asyncio.to_thread(docker, "kill", killed)
            await publish_until_all_hear(compose, sources, "after the kill")
            assert sum(source.opened - 1 for source in sources) >= 3
            await start_again(killed)


def test_only_nginx_can_be_reached(compose: Compose) -> None:
    published = {
        service: [docker("port", container).strip() for container in compose.containers(service)]
        for service in ("redis", "worker", "nginx")
    }
    assert not any(published["redis"])
    assert not any(published["worker"])
    assert all(line.startswith("80/tcp -> 127.0.0.1:") for line in published["nginx"])


def _status(container: str) -> dict[str, str]:
    lines = docker("exec", container, "cat", "/proc/1/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


_CAPABILITIES = {
    "redis": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETPCAP", "SETUID"},
    "worker": set[str](),
    "nginx": {"CHOWN", "NET_BIND_SERVICE", "SETGID", "SETUID"},
}
_NUMBERS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
}


@pytest.mark.parametrize("service", _CAPABILITIES)
def test_a_container_has_no_more_than_it_needs(compose: Compose, service: str) -> None:
    for container in compose.containers(service):
        status = _status(container)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapBnd"], 16) == sum(1 << _NUMBERS[name] for name in _CAPABILITIES[service])
        for place in ("/", "/etc", "/usr/bin", "/opt", "/var"):
            assert "Read-only" in docker("exec", container, "sh", "-c", f"touch {place}/x 2>&1; true")
        memory, processes = docker(
            "inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", container
        ).split()
        assert int(memory) == 1 << 30
        assert 0 < int(processes) <= 256


_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 6379), 2)"


def test_nginx_can_not_reach_redis(compose: Compose) -> None:
    [nginx], [redis] = compose.containers("nginx"), compose.containers("redis")
    address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", redis).strip()
    docker("exec", compose.containers("worker")[0], "python", "-c", _CONNECT, address)  # a worker can
    said = docker("exec", nginx, "sh", "-c", f"curl -sS --max-time 3 telnet://{address}:6379 2>&1; echo $?")
    assert said.split()[-1] in ("7", "28"), said  # refused, or no answer
    assert docker("exec", nginx, "sh", "-c", "getent hosts redis || true") == ""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_spelling_means_one_thing_to_nginx_and_another_to_a_worker(
    compose: Compose, address: str, method: str
) -> None:
    """As in test_paths.py, with the nginx of the image, which is a newer one."""
    networks = json.loads(
        docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", compose.containers("worker")[0])
    )
    [worker] = [network["IPAddress"] for name, network in networks.items() if name.endswith("_edge")]
    port = int(address.rpartition(":")[2])
    different, reached = {}, set()
    for target in TARGETS:
        direct, through = ask(8080, method, target, host=worker), ask(port, method, target)
        if through.what not in ("", direct.what):
            different[target] = (direct, through)
        reached.add(through.what.partition(" ")[0])
    assert not different
    assert ("published" in reached) is (method == "POST")
    assert ("stream" in reached) is (method == "GET")


def test_redis_refuses_rather_than_loses(compose: Compose) -> None:
    def setting(name: str) -> str:
        return compose("exec", "-T", "redis", "redis-cli", "CONFIG", "GET", name).split("\n", 1)[1].strip()

    assert setting("maxmemory") == str(512 << 20)
    assert setting("maxmemory-policy") == "noeviction"
    assert f"pubsub {64 << 20} {32 << 20} 60" in setting("client-output-buffer-limit")
    assert setting("proto-max-bulk-len") == str(16 << 20)
    assert "proto-max-bulk-len" not in compose("logs", "worker")


def test_durable_events_are_refused_when_redis_is_full(compose: Compose, url: str) -> None:
    """And the kept ones stay."""
    kept = httpx.post(f"{url}/publish/full?durable=1", content=b"kept")
    assert kept.status_code == 200
    try:
        compose("exec", "-T", "redis", "redis-cli", "CONFIG", "SET", "maxmemory", "1mb")
        assert httpx.post(f"{url}/publish/full?durable=1", content=b"too much").status_code == 503
        assert httpx.post(f"{url}/publish/full", content=b"plain").status_code == 200
        found = compose("exec", "-T", "redis", "redis-cli", "XLEN", "gateway.stream:full")
        assert found.strip() == "1"
    finally:
        compose("exec", "-T", "redis", "redis-cli", "CONFIG", "SET", "maxmemory", "512mb")


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8080", "127.0.0.1.nip.io"])
def test_a_page_whose_name_leads_here_may_do_nothing(url: str, host: str) -> None:
    """DNS rebinding: to the browser it is of one origin with this gateway."""
    headers = {"Host": host, "Origin": f"http://{host}"}
    published = httpx.post(f"{url}/publish/news", content=b"x", headers=headers)
    for response in (
        published,
        *(httpx.get(f"{url}{path}", headers=headers) for path in ("/", "/events/a", "/metrics")),
    ):
        assert response.status_code == 400
        assert "allowed_hosts" in response.json()["detail"]


def test_workers_are_not_root_and_may_open_many_files(compose: Compose) -> None:
    worker = compose.containers("worker")[0]
    assert docker("exec", worker, "id", "-u").strip() == "10001"
    assert docker("exec", worker, "sh", "-c", "ulimit -n").strip() == "20000"
    [nginx] = compose.containers("nginx")
    assert docker("exec", nginx, "sh", "-c", "ulimit -n").strip() == "20000"
    assert "successful" in docker("exec", nginx, "sh", "-c", "nginx -t 2>&1")
    warnings = [line for line in compose("logs", "nginx").splitlines() if "[warn]" in line or "[alert]" in line]
    assert not warnings


def test_the_production_variant(tmp_path: Path) -> None:
    """For strangers: TLS and HTTP/2, no console, no publishing, no figures."""
    plain, tls = free_port(), free_port()
    env = {
        "EDGE_HTTP_ADDRESS": f"127.0.0.1:{plain}",
        "EDGE_HTTPS_ADDRESS": f"127.0.0.1:{tls}",
        "EDGE_TLS": str(make_certificate(tmp_path / "tls")),
        "EDGE_HOSTS": "events.example.com",
    }
    url = f"https://localhost:{tls}"
    with (
        Compose(env, ["docker-compose.yml", "deploy/compose.production.yml"]) as compose,
        httpx.Client(http2=True, verify=False, timeout=20) as client,
    ):
        compose("up", "--build", "--detach", "--wait")
        [nginx] = compose.containers("nginx")
        check = docker("exec", nginx, "sh", "-c", "nginx -t 2>&1")
        assert "successful" in check
        assert "[warn]" not in check

        with client.stream("GET", f"{url}/events/news") as response:
            assert (response.status_code, response.http_version) == (200, "HTTP/2")
            lines = response.iter_lines()
            assert "event: gateway.open" in (next(lines), next(lines))
            while next(lines):
                pass
            compose("exec", "-T", "redis", "redis-cli", "PUBLISH", "news", "hello")
            assert next(line for line in lines if line.startswith("data:")) == "data: hello"

        assert {client.get(f"{url}{path}").status_code for path in ("/", "/metrics", "/readyz")} == {404}
        assert client.post(f"{url}/publish/news", content=b"x").status_code == 404
        assert client.get(f"{url}/events/news", headers={"Host": "attacker.example"}).status_code == 400
        assert client.get(f"{url}/healthz").headers["strict-transport-security"] == "max-age=31536000"
        assert httpx.get(f"http://127.0.0.1:{plain}/").status_code == 301
    assert compose.leftovers() == ""


def test_the_files_say_what_they_mean() -> None:
    """The grace period covers the drain, and nothing is published to the world by default."""
    config = json.loads(Compose({})("config", "--format", "json"))
    worker, nginx, redis = (config["services"][name] for name in ("worker", "nginx", "redis"))
    assert worker["stop_grace_period"] == "30s"
    assert [port["host_ip"] for port in nginx["ports"]] == ["127.0.0.1"]
    assert set(nginx["networks"]) & set(redis["networks"]) == set()
    assert config["networks"][next(iter(redis["networks"]))]["internal"]
    assert worker["environment"]["GATEWAY_ALLOWED_HOSTS"] == "localhost,127.0.0.1,"


@pytest.mark.parametrize(
    ("files", "named", "allowed"),
    [
        (["docker-compose.yml"], "a.example,10.0.0.7", "localhost,127.0.0.1,a.example,10.0.0.7"),
        (["docker-compose.yml", "deploy/compose.production.yml"], "", ""),
        (["docker-compose.yml", "deploy/compose.production.yml"], "a.example", "localhost,127.0.0.1,a.example"),
    ],
)
def test_the_names_it_is_reached_by_are_a_variable(files: list[str], named: str, allowed: str) -> None:
    """The health check inside a container asks 127.0.0.1."""
    config = json.loads(Compose({"EDGE_HOSTS": named, "EDGE_TLS": "/tls"}, files)("config", "--format", "json"))
    assert config["services"]["worker"]["environment"]["GATEWAY_ALLOWED_HOSTS"] == allowed
