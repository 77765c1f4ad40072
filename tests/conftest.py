"""What the tests of several layers use. Servers start when the first test asks for them."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings

from testing.servers import RedisServer

# How long an example takes says nothing on a machine that has other things to do.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
# For `make mutants`: the same examples for each mutant, and no search for the simplest one that fails.
settings.register_profile(
    "mutants",
    settings.get_profile("any speed"),
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def channel() -> str:
    """A channel name no other test uses."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis for all tests that don't harm it; each process that runs tests has one."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def publisher(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the Redis the test uses."""
    with redis_server.client() as client:
        yield client
