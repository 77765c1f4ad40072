"""Grants that are revoked, on all workers; and what one subject may take."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until

SECRET = "a secret that is long enough for anybody"
ROOT = {"sub": "root", "gateway": {"admin": True}}


def token(sub: str | None, age: float | None = 10.0, **claim: Any) -> str:
    claims: dict[str, Any] = {"gateway": {"subscribe": ["*"], "publish": ["*"], **claim}}
    if sub is not None:
        claims["sub"] = sub
    if age is not None:
        claims["iat"] = time.time() - age
    return jwt.encode(claims, SECRET, "HS256")


def bearer(sub: str | None, age: float | None = 10.0, **claim: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(sub, age, **claim)}"}


def status(worker: Worker, headers: dict[str, str]) -> int:
    return httpx.head(f"{worker.url}/events?channel=news", headers=headers).status_code


def revoke(worker: Worker, sub: str) -> None:
    answer = httpx.post(f"{worker.url}/revoke", json={"sub": sub}, headers=bearer("root", admin=True))
    assert answer.json() == {"sub": sub}


@pytest.fixture
def workers(private_redis: RedisServer, tmp_path: Path) -> Iterator[list[Worker]]:
    settings: dict[str, Any] = {"jwt_secret": SECRET, "redis_backoff_max": 0.1, "channel_prefix": "p:"}
    with (
        Worker(tmp_path, private_redis.url, **settings) as one,
        Worker(tmp_path, private_redis.url, **settings, delivery="portable") as other,
    ):
        yield [one, other]


@pytest.mark.parametrize("way", ["HTTP", "command"])
def test_a_subjects_streams_end_on_all_workers(workers: list[Worker], private_redis: RedisServer, way: str) -> None:
    one, other = workers
    alice, bob = bearer("alice"), bearer("bob")
    with (
        open_stream(one.url, "news", headers=alice) as first,
        open_stream(other.url, ["news", "more"], headers=alice) as second,
        open_stream(one.url, "news", headers=bob) as stays,
        open_stream(other.url, "news", headers=bearer(None)) as nobodys,
    ):
        began = time.monotonic()
        if way == "HTTP":
            revoke(one, "alice")
        else:
            command = [sys.executable, "-m", "gateway", "revoke", "alice", "--redis-url", private_redis.url]
            done = subprocess.run([*command, "--channel-prefix", "p:"], capture_output=True, text=True, check=True)
            assert "alice" in done.stdout
            began = time.monotonic()
        for stream in (first, second):
            (last,) = stream.rest()
            assert (last.type, json.loads(last.data)) == ("gateway.closing", {"reason": "revoked"})
        assert time.monotonic() - began < 5, "a second, on a machine that has nothing else to do"
        with private_redis.client() as redis:
            redis.publish("p:news", "hello")
        assert (stays.next().data, nobodys.next().data) == ("hello", "hello")
    for worker in workers:
        assert status(worker, alice) == 401
        assert status(worker, bearer("alice", age=None)) == 401, "it may be from before"
        assert status(worker, bob) == 200
        assert status(worker, bearer("alice", age=-5)) == 200, "a newer one counts"
        answer = httpx.post(f"{worker.url}/publish/news", content="x", headers=alice)
        assert answer.status_code == 401
        assert "revoked" in answer.json()["detail"]


def test_a_worker_that_was_away_learns_of_it(
    workers: list[Worker], private_redis: RedisServer, tmp_path: Path
) -> None:
    one, other = workers
    alice = bearer("alice")
    with open_stream(other.url, "news", headers=alice) as stream, private_redis.client() as redis:
        # A notice that this worker never hears.
        redis.zadd("p:gateway:revoked", {"alice": time.time()})
        redis.client_kill_filter(_type="pubsub")
        assert [event.type for event in stream.rest()][-1:] == ["gateway.closing"]
    wait_until(lambda: other.ready() and one.ready(), "they are connected again")
    assert status(other, alice) == 401
    with Worker(tmp_path, private_redis.url, jwt_secret=SECRET, channel_prefix="p:") as late:
        assert status(late, alice) == 401
        assert status(late, bearer("bob")) == 200


def test_it_takes_an_admin(workers: list[Worker]) -> None:
    one, _ = workers
    for headers, expected in (
        ({}, 401),
        (bearer("alice"), 403),
        (bearer("alice", admin=False), 403),
        ({"Authorization": "Bearer nonsense"}, 401),
    ):
        assert httpx.post(f"{one.url}/revoke", json={"sub": "bob"}, headers=headers).status_code == expected
    for content in (b"", b"{", b"[]", b"{}", b'{"sub": ""}', b'{"sub": 7}', b'{"sub": "%b"}' % (b"x" * 1025)):
        answer = httpx.post(f"{one.url}/revoke", content=content, headers=bearer("root", admin=True))
        assert answer.status_code == 400
    assert status(one, bearer("bob")) == 200
    assert httpx.get(f"{one.url}/revoke", headers=bearer("root", admin=True)).status_code == 405


def test_whoever_may_publish_can_revoke_nothing(workers: list[Worker], private_redis: RedisServer) -> None:
    one, _ = workers
    alice = bearer("alice")
    with open_stream(one.url, "news", headers=alice) as stream, private_redis.client() as redis:
        for payload in ("", "alice", '{"sub": "alice"}', "x" * 100_000):
            for _ in range(50):
                redis.publish("p:gateway.revoked.0", payload)
        redis.publish("p:news", "still here")
        assert stream.next().data == "still here"
        before = redis.info("commandstats").get("cmdstat_zrangebyscore", {"calls": 0})["calls"]
        for _ in range(500):
            redis.publish("p:gateway.revoked.0", "")
        redis.publish("p:news", "still here")
        assert stream.next().data == "still here"
        after = redis.info("commandstats")["cmdstat_zrangebyscore"]["calls"]
        assert after - before < 100, "not one reading for each"
    assert status(one, alice) == 200


def test_revocations_do_not_pile_up(private_redis: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, private_redis.url, jwt_secret=SECRET, revocation_age=100) as worker:
        with private_redis.client() as redis:
            redis.zadd("gateway:revoked", {f"old {number}": time.time() - 101 for number in range(10)})
            revoke(worker, "alice")
            assert redis.zrange("gateway:revoked", 0, -1) == [b"alice"]
        wait_until(lambda: status(worker, bearer("alice")) == 401, "it counts")


def test_a_broken_key_costs_revocations_and_nothing_else(private_redis: RedisServer, tmp_path: Path) -> None:
    with private_redis.client() as redis:
        redis.set("gateway:revoked", "something else")
        with Worker(tmp_path, private_redis.url, jwt_secret=SECRET) as worker:
            with open_stream(worker.url, "news", headers=bearer("alice")) as stream:
                redis.publish("news", "hello")
                assert stream.next().data == "hello"
            answer = httpx.post(f"{worker.url}/revoke", json={"sub": "a"}, headers=bearer("root", admin=True))
            assert answer.status_code == 503
            assert "no grant can be revoked" in worker.output
            assert "Traceback" not in worker.output


def test_where_everything_is_public_nothing_is_revoked(private_redis: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, private_redis.url) as worker:
        answer = httpx.post(f"{worker.url}/revoke", json={"sub": "alice"})
        assert answer.status_code == 403
        with private_redis.client() as redis:
            assert redis.pubsub_numsub("gateway.revoked.0") == [(b"gateway.revoked.0", 0)]


def test_a_subject_has_limits(private_redis: RedisServer, tmp_path: Path) -> None:
    with (
        Worker(
            tmp_path, private_redis.url, jwt_secret=SECRET, subject_streams=2, subject_publish_rate=1
        ) as worker,
        open_stream(worker.url, "news", headers=bearer("alice")),
    ):  # fmt: skip
        with open_stream(worker.url, "news", headers=bearer("alice")):
            with open_stream(worker.url, "news", headers=bearer("alice")) as third:
                (last,) = third.rest()
                assert (last.type, json.loads(last.data)["reason"]) == ("gateway.closing", "subject_limit")
            for other in (bearer("bob"), bearer(None), bearer(None), bearer(None)):
                with open_stream(worker.url, "news", headers=other) as stream:
                    assert httpx.post(f"{worker.url}/publish/news", content="x", headers=bearer(None)).is_success
                    assert stream.next().data == "x"
        wait_until(lambda: metric(worker, "streams") == 1, "one has left")
        with open_stream(worker.url, "news", headers=bearer("alice")) as again:
            answers = [
                httpx.post(f"{worker.url}/publish/news", content="x", headers=bearer("alice")) for _ in range(3)
            ]
            assert answers[0].status_code == 200
            assert 429 in {answer.status_code for answer in answers}
            assert again.next().data == "x"
            assert httpx.post(f"{worker.url}/publish/news", content="x", headers=bearer("bob")).status_code == 200
