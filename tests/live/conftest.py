"""A gateway in each of its forms, over a real and the embedded Redis."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.broker.embedded import EmbeddedRedis
from testing.process import free_port
from testing.servers import RedisServer, Worker
from testing.stacks import FORMS, Form, Stack, start_worker


@pytest.fixture(scope="session", params=FORMS, ids=str)
def stack(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A worker in one of its forms; the tests of the session share it."""
    form: Form = request.param
    with ExitStack() as opened:
        url = opened.enter_context(EmbeddedRedis(free_port())).url if form.embedded else redis_server.url
        worker = opened.enter_context(start_worker(form, tmp_path_factory.mktemp(str(form)), url))
        worker.wait_ready()
        yield Stack(form, worker, url)


@pytest.fixture(scope="module")
def worker(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with the default settings, direct delivery and a real Redis."""
    with Worker(tmp_path_factory.mktemp("worker"), redis_server.url) as running:
        yield running


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own, for tests that stop it."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(params=["functions", "no functions"])
def url(private_redis: RedisServer, request: pytest.FixtureRequest) -> str:
    """Of a Redis with Functions; or one without, as before 7.0: nobody may use them."""
    if request.param == "functions":
        return private_redis.url
    return private_redis.limited_url(without=["function", "fcall"])
