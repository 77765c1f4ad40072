"""Keys that an identity provider publishes: a real worker, and a real server for the keys."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from testing.http import metric
from testing.process import free_port
from testing.servers import RedisServer, Worker
from testing.waiting import wait_until


class KeyServer:
    """Serves a key set at a port of its own; can be stopped, and started again there.

    Attributes:
        answer: status and body.
        requests: how many there were.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/keys"
        self.answer: tuple[int, bytes] = (200, b'{"keys": []}')
        self.requests = 0

    def serve(self, **keys: Any) -> None:
        """Exactly these, by their names."""
        described = [
            json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key())) | {"kid": kid}
            for kid, key in keys.items()
        ]
        self.answer = 200, json.dumps({"keys": described}).encode()

    @contextmanager
    def running(self) -> Iterator[Self]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                status, body = server.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as http:
            thread = threading.Thread(target=http.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield self
            finally:
                http.shutdown()
                thread.join()


def new_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def bearer(key: Any, kid: str | None) -> dict[str, str]:
    claims = {"exp": time.time() + 600, "gateway": {"subscribe": ["closed"], "publish": ["closed"]}}
    text = jwt.encode(claims, key, "ES256", headers=None if kid is None else {"kid": kid})
    return {"Authorization": f"Bearer {text}"}


def asked(worker: Worker, key: Any, kid: str | None) -> str:
    """What comes of a request for a stream: `gateway.open`, `gateway.closing`, or the status."""
    with httpx.stream("GET", f"{worker.url}/events?channel=closed", headers=bearer(key, kid)) as answer:
        if answer.status_code != 200:
            return str(answer.status_code)
        return next(line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: "))


OPEN, LATER = "gateway.open", "gateway.closing"


@pytest.fixture
def keys() -> KeyServer:
    return KeyServer()


def test_keys_are_changed_while_it_runs(keys: KeyServer, redis_server: RedisServer, tmp_path: Path) -> None:
    first, second, stranger = new_key(), new_key(), new_key()
    keys.serve(first=first)
    with keys.running(), Worker(tmp_path, redis_server.url, jwks_url=keys.url) as worker:
        assert asked(worker, first, "first") == OPEN
        assert asked(worker, first, None) == OPEN
        keys.serve(first=first, second=second)
        assert asked(worker, second, "second") == OPEN, "it is looked for at once"
        requests = keys.requests
        assert asked(worker, stranger, "second") == "401"
        assert asked(worker, stranger, "first") == "401"
        assert keys.requests == requests, "their names are known, so nobody is asked"
        assert metric(worker, "key_reads_total", outcome="read") == requests


def test_made_up_names_do_not_become_requests(keys: KeyServer, redis_server: RedisServer, tmp_path: Path) -> None:
    stranger = new_key()
    with keys.running(), Worker(tmp_path, redis_server.url, jwks_url=keys.url) as worker:
        wait_until(lambda: keys.requests, "the keys are read at the start")
        assert asked(worker, stranger, "made up") == "401"
        assert asked(worker, stranger, "made up") == LATER
        secret = jwt.encode({}, "x" * 32, "HS256", headers={"kid": "other"})
        answer = httpx.head(f"{worker.url}/events?channel=closed", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 401, "no key of a set could verify that"
        requests = keys.requests
        for number in range(20):
            # It could be a key that is new: with a 401 its EventSources would stop permanently.
            assert asked(worker, stranger, str(number)) == LATER
        answer = httpx.post(f"{worker.url}/publish/closed", content="x", headers=bearer(stranger, "new"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert keys.requests == requests


def test_a_key_that_was_asked_for_too_early_counts_once_it_is_there(
    keys: KeyServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    """One forged token that named the next key locked out everybody with a good one, for five minutes."""
    following = new_key()
    with keys.running(), Worker(tmp_path, redis_server.url, jwks_url=keys.url) as worker:
        wait_until(lambda: keys.requests, "the keys are read at the start")
        assert asked(worker, new_key(), "following") == "401"
        keys.serve(following=following)
        outcomes: set[str] = set()

        def is_open() -> bool:
            outcomes.add(asked(worker, following, "following"))
            return OPEN in outcomes

        wait_until(is_open, "it counts", 40)
        assert "401" not in outcomes, "nobody was stopped meanwhile"


def test_no_log_line_has_a_password_in_it(keys: KeyServer, redis_server: RedisServer, tmp_path: Path) -> None:
    url = keys.url.replace("//", "//user:hunter2@") + "?key=hunter3"
    with Worker(tmp_path, redis_server.url, jwks_url=url, log_level="debug") as worker:
        wait_until(lambda: "could not be read" in worker.output, "it says so")
        keys.answer = 500, b""
        with keys.running():
            wait_until(lambda: "status 500" in worker.output, "it says so", 40)
            keys.serve(first=new_key())
            wait_until(lambda: "keys that verify tokens\n" in worker.output, "they are read", 40)
        assert "hunter" not in worker.output


def test_the_keys_outlive_their_server(keys: KeyServer, redis_server: RedisServer, tmp_path: Path) -> None:
    first = new_key()
    keys.serve(first=first)
    with Worker(tmp_path, redis_server.url, jwks_url=keys.url) as worker:
        with keys.running():
            wait_until(lambda: asked(worker, first, "first") == OPEN and "1 keys" in worker.output, "they are read")
        assert asked(worker, first, "first") == OPEN
        assert asked(worker, new_key(), "new") == LATER
        assert asked(worker, first, "first") == OPEN
        for answer in ((500, b""), (200, b"<html>"), (200, b'{"keys": 7}'), (302, b""), (200, b"x" * 2_000_000)):
            keys.answer = answer
            with keys.running():
                assert asked(worker, first, "first") == OPEN


def test_without_keys_nobody_is_rejected(keys: KeyServer, redis_server: RedisServer, tmp_path: Path) -> None:
    """The provider starts after the gateway: EventSources must not have stopped by then."""
    first = new_key()
    keys.serve(first=first)
    with Worker(tmp_path, redis_server.url, jwks_url=keys.url) as worker:
        wait_until(lambda: "could not be read" in worker.output, "it says so")
        assert asked(worker, first, "first") == LATER
        assert httpx.head(f"{worker.url}/events?channel=closed").status_code == 401, "that can be told"
        with keys.running():
            wait_until(lambda: asked(worker, first, "first") == OPEN, "they are read", 40)
