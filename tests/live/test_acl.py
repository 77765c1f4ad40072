"""The users of docs/security.md: what they may do is enough for everything, and nothing of it is superfluous."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import redis

from testing.acl import Acl, documented, worker_rules
from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.publishing import subscribers, wait_functions

JWT_SECRET = "a secret that is long enough for anybody"
FUNCTIONS = ("+fcall", "+function|list", "+function|load", "+function|delete")
TICK = b"2 1 1 0000000000000000  "
SETTINGS: dict[str, Any] = {
    "jwt_secret": JWT_SECRET,
    "public_channels": "*",
    "allowed_patterns": "news*",
    "linger": 0,
    "drain_window": 0,
    "redis_backoff_max": 0.1,
    "retry_min": 0.05,
    "retry_max": 0.1,
}


def bearer(sub: str, **claim: Any) -> dict[str, str]:
    claims = {"sub": sub, "iat": time.time() - 10, "gateway": {"subscribe": ["*"], "publish": ["*"], **claim}}
    return {"Authorization": f"Bearer {jwt.encode(claims, JWT_SECRET, 'HS256')}"}


def publish(worker: Worker, channel: str, text: str, durable: bool = False) -> None:
    url = f"{worker.url}/publish/{channel}{'?durable=1' if durable else ''}"
    assert httpx.post(url, content=text, headers=bearer("publisher")).status_code == 200


def gateway(*words: str, url: str) -> None:
    """A command of the gateway."""
    command = [sys.executable, "-m", "gateway", *words, "--redis-url", url]
    subprocess.run(command, check=True, timeout=30, capture_output=True)


# -- enough


@dataclass(frozen=True)
class Case:
    """A worker's user.

    Attributes:
        rules: what it may do.
        prefix: the setting channel_prefix.
        database: number of Redis'.
        patterns: whether it may listen to any.
        functions: whether it may use Redis' functions, and may load them.
    """

    rules: tuple[str, ...]
    prefix: str = ""
    database: int = 0
    patterns: bool = False
    functions: str = "loads"


def _case(*more: str, without: tuple[str, ...] = (), **attributes: Any) -> Case:
    rules = tuple(rule for rule in worker_rules(*more) if rule not in without)
    if attributes.get("functions") == "none":
        rules = (rules[0], rules[1], "resetchannels", *rules[2:])
    return Case(rules, **attributes)


CASES = {
    "channels": _case(),
    "patterns": _case("+psubscribe", patterns=True),
    "prefix and database": _case("resetkeys", "+select", prefix="app:", database=1),
    "functions of an operator": _case(without=FUNCTIONS[2:], functions="uses"),
    "no functions": _case(without=FUNCTIONS, functions="none"),
}


class Users:
    """Two workers and a publisher, each with no more than it may."""

    def __init__(self, stack: ExitStack, directory: Path, server: RedisServer, case: Case) -> None:
        self.case = case
        self.acl = Acl(server, case.database)
        self._stack = stack
        self._directory = directory
        self.acl.allow("worker", case.rules)
        rules = documented("publisher")[0]
        if case.functions == "none":
            rules = ["on", ">password", "resetchannels", "&news*", "+publish"]
        self.acl.allow(
            "publisher",
            [rule.replace("~news", f"~{case.prefix}news").replace("&news", f"&{case.prefix}news") for rule in rules],
        )
        if case.functions == "uses":
            gateway("publish", "news", "first", "--durable", url=self.acl.url("test"))
        # redis-py would tell a name and a version, as nobody has to.
        self.publisher = redis.Redis.from_url(self.acl.url("publisher"), driver_info=None)
        self.workers = [self.start(), self.start()]

    def start(self, **settings: Any) -> Worker:
        prefix = {"channel_prefix": self.case.prefix} if self.case.prefix else {}
        worker = Worker(self._directory, self.acl.url("worker"), **{**SETTINGS, **prefix, **settings})
        return self._stack.enter_context(worker)

    def plain(self, channel: str, text: str) -> None:
        self.publisher.publish(self.case.prefix + channel, text)

    def durable(self, channel: str, text: str) -> None:
        if self.case.functions == "none":
            publish(self.workers[0], channel, text, durable=True)
        else:
            self.publisher.fcall("gateway_publish", 1, self.case.prefix + channel, text)

    def denied(self) -> set[tuple[str, str]]:
        # Here it is only this user who may not use them; before 7.0 there are none.
        missing = {("command", rule[1:]) for rule in FUNCTIONS} if self.case.functions == "none" else set()
        return (self.acl.denied("worker") | self.acl.denied("publisher")) - missing


@pytest.fixture(params=CASES)
def users(request: pytest.FixtureRequest, private_redis: RedisServer, tmp_path: Path) -> Iterator[Users]:
    with ExitStack() as stack:
        yield Users(stack, tmp_path, private_redis, CASES[request.param])


def test_they_may_do_all_that_they_do(users: Users) -> None:
    one, other = users.workers
    _deliver(users, one)
    _remember(users, one, other)
    if users.case.patterns:
        _listen_to_a_pattern(users, one)
    _use_a_ticket(one, other)
    _end(users, one, other)
    _revoke(users, one, other)
    _lose_everything(users, one)
    _leave_and_change_the_secret(users)
    assert users.denied() == set()
    for worker in users.workers:
        assert "ACL" not in worker.output
        assert "NOPERM" not in worker.output


def _deliver(users: Users, one: Worker) -> None:
    with Client("news") as listening, Client("news", "news.more") as mixed:
        listening.open(one)
        mixed.open(one)
        users.plain("news", "plain")
        users.durable("news", "durable")
        publish(one, "news", "by HTTP")
        publish(one, "news", "durable by HTTP", durable=True)
        expected = ["plain", "durable", "by HTTP", "durable by HTTP"]
        assert listening.take(4) == mixed.take(4) == expected
    name = users.case.prefix + "news"
    wait_until(lambda: not subscribers(users.acl.admin, name), "it is unsubscribed from")


def _remember(users: Users, one: Worker, other: Worker) -> None:
    with Client("news.a") as away, Client("news.a") as stays:
        away.open(one)
        stays.open(one)
        away.leave()
        users.plain("news.a", "plain")
        users.durable("news.a", "durable")
        assert stays.take(2) == ["plain", "durable"]
        assert away.missed(other, 2) == ["plain", "durable"], "the other worker has asked the first"
    with Client("news.b") as away:
        away.open(one)
        away.leave()
        users.durable("news.b", "1")
        wait_until(lambda: not subscribers(users.acl.admin, users.case.prefix + "news.b"), "nobody listens")
        assert away.missed(other, 1)[-1] == "1", "it is in Redis"
    with open_stream(other.url, "news.a", params=[("history", "1")]) as stream:
        assert stream.next().data == "durable"


def _listen_to_a_pattern(users: Users, one: Worker) -> None:
    with Client(patterns=["news*"]) as listening:
        listening.open(one)
        users.plain("news.c", "plain")
        users.durable("news.d", "durable")
        assert listening.take(2) == ["plain", "durable"]
    with open_stream(one.url, params=[("pattern", "news*"), ("history", "1")]) as stream:
        assert stream.next().data == "durable"
    wait_until(lambda: not users.acl.admin.pubsub_numpat(), "it is unsubscribed from")
    may_more = users.acl.command("ACL", "DRYRUN", "worker", "PSUBSCRIBE", "news.a*")
    assert b"no permissions" in may_more, "a pattern is compared letter by letter"


def _end(users: Users, one: Worker, other: Worker) -> None:
    with open_stream(one.url, "news.end") as stream, open_stream(other.url, ["news.end", "news.more"]) as both:
        if users.case.functions == "none":
            answer = httpx.post(f"{one.url}/publish/news.end?end=1", headers=bearer("publisher"))
            assert answer.status_code == 200, answer.text
        else:
            users.publisher.fcall("gateway_end", 1, users.case.prefix + "news.end")
        assert [event.type for event in stream.rest()] == [both.next().type] == ["gateway.ended"]
    assert httpx.get(f"{other.url}/events?channel=news.end").status_code == 204


def ask_for_ticket(worker: Worker) -> str:
    answer = httpx.post(f"{worker.url}/ticket", json={"channels": ["news"]}, headers=bearer("bob"))
    assert answer.status_code == 200, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


def _use_a_ticket(one: Worker, other: Worker) -> None:
    ticket = ask_for_ticket(one)
    with open_stream(other.url, params=[("ticket", ticket)]):
        assert httpx.get(f"{one.url}/events", params={"ticket": ticket}).status_code == 401


def _revoke(users: Users, one: Worker, other: Worker) -> None:
    with open_stream(other.url, "news", headers=bearer("alice")) as stream:
        answer = httpx.post(f"{one.url}/revoke", json={"sub": "alice"}, headers=bearer("root", admin=True))
        assert answer.json() == {"sub": "alice"}
        assert [json.loads(event.data) for event in stream.rest()] == [{"reason": "revoked"}]


def _lose_everything(users: Users, one: Worker) -> None:
    connects = metric(one, "redis_connects_total")
    users.acl.admin.flushall()
    users.acl.admin.script_flush()
    if users.case.functions == "loads":
        users.acl.admin.function_flush()
    users.acl.disconnect("worker")
    wait_until(lambda: metric(one, "redis_connects_total") > connects and one.ready(), "it has connected again")
    if users.case.functions == "loads":
        wait_functions(users.acl.admin)
    with Client("news") as listening:
        listening.open(one)
        users.durable("news", "after")
        assert listening.take(1) == ["after"]


def _leave_and_change_the_secret(users: Users) -> None:
    """A worker hands over what only it knows; the next one brings another secret."""
    one, leaving = users.workers
    with Client("news.e") as moves, Client("news") as stays:
        moves.open(leaving)
        users.plain("news.e", "1")
        assert moves.take(1) == ["1"]
        stays.open(one)
        assert leaving.stop() == 0
        assert moves.open(one) == []
        if users.case.functions == "uses":
            return  # the secret is not theirs to change
        connects = metric(one, "redis_connects_total")
        users.workers[1] = users.start(secret="another-secret-of-the-workers")
        with Client("news") as new:
            new.open(users.workers[1])
            users.durable("news", "signed anew")
            assert new.take(1) == stays.take(1) == ["signed anew"]
        assert metric(one, "redis_connects_total") == connects
        assert metric(one, "unsigned_messages_total") == 0


def test_a_worker_without_config_get_leaves_no_trace(tmp_path: Path) -> None:
    """With it, it says that Redis' limits don't fit."""
    with RedisServer(tmp_path, "--client-output-buffer-limit", "pubsub", "8mb", "4mb", "60") as server:
        acl = Acl(server)
        acl.allow("worker", worker_rules("+config|get"))
        with Worker(tmp_path, acl.url("worker")) as worker:
            wait_until(lambda: "Redis' limits don't fit" in worker.output, "a warning")
        acl.allow("worker", worker_rules())
        with Worker(tmp_path, acl.url("worker"), log_level="debug") as worker:
            wait_until(lambda: "doesn't tell its limits" in worker.output, "it has looked")
        assert acl.denied("worker") == set()


# -- nothing superfluous


class Stage:
    """One worker, all of whose rights are needed by something.

    Attributes:
        channel: one that nobody has used before.
    """

    def __init__(self, directory: Path, server: RedisServer, rules: list[str]) -> None:
        self.acl = Acl(server, database=1)
        self.acl.allow("worker", rules)
        self.worker = Worker(directory, self.acl.url("worker"), **SETTINGS)
        self.channel = ""
        self.opened = ExitStack()
        self._rules = rules

    def begin(self) -> None:
        """A worker that has all rights."""
        self.opened.close()
        self.channel = f"news.{uuid4().hex[:8]}"
        before = metric(self.worker, "redis_connects_total")
        self.acl.allow("worker", self._rules)
        self.acl.disconnect("worker")
        wait_until(
            lambda: metric(self.worker, "redis_connects_total") > before and self.worker.ready(), "connected again"
        )
        wait_functions(self.acl.admin)
        self.acl.forget()

    def request(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request, and don't wait for its answer: without a right there may never be one."""
        connection = self.opened.enter_context(socket.create_connection(("127.0.0.1", self.worker.port), timeout=20))
        head = [f"{method} {target} HTTP/1.1", "Host: x", *headers]
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)

    def listen(self) -> Client:
        client = self.opened.enter_context(Client(self.channel))
        client.open(self.worker)
        return client

    def durable(self, text: str) -> None:
        self.acl.admin.fcall("gateway_publish", 1, self.channel, text)

    def wait_unsubscribed(self) -> None:
        wait_until(lambda: not subscribers(self.acl.admin, self.channel), "nobody listens")


Use = Callable[[Stage], Iterator[None]]
"""Prepares something with all rights, yields, and does what needs the right."""


def connecting(stage: Stage) -> Iterator[None]:
    yield
    stage.acl.disconnect("worker")


def connecting_to_an_empty_redis(stage: Stage) -> Iterator[None]:
    yield
    stage.acl.admin.flushall()
    stage.acl.admin.function_flush()
    stage.acl.disconnect("worker")


def listening(stage: Stage) -> Iterator[None]:
    yield
    stage.request(f"/events/{stage.channel}")


def leaving(stage: Stage) -> Iterator[None]:
    client = stage.listen()
    yield
    client.leave()


def listening_to_a_pattern(stage: Stage) -> Iterator[None]:
    stage.durable("kept")
    yield
    stage.request("/events?pattern=news*&history=1")


def leaving_a_pattern(stage: Stage) -> Iterator[None]:
    client = stage.opened.enter_context(Client(patterns=["news*"]))
    client.open(stage.worker)
    yield
    client.leave()


def publishing(stage: Stage) -> Iterator[None]:
    """What is kept has ended, and ran ahead of Redis' clock."""
    leftovers(stage.acl.admin, stage.channel)
    yield
    authorization = bearer("publisher")["Authorization"]
    stage.request(
        f"/publish/{stage.channel}?durable=1",
        f"Authorization: {authorization}",
        "Content-Length: 0",
        method="POST",
    )


def leftovers(client: redis.Redis, channel: str) -> None:
    client.xadd(f"gateway.stream:{channel}", {"d": "x"}, id="99999999999999999-1")
    client.zadd("gateway.checkpoints", {"1-1": 1})
    client.zadd("gateway.ages", {"gone": 1})
    client.hdel("gateway.positions", "step")


def ending(stage: Stage) -> Iterator[None]:
    yield
    authorization = bearer("publisher")["Authorization"]
    stage.request(
        f"/publish/{stage.channel}?end=1", f"Authorization: {authorization}", "Content-Length: 0", method="POST"
    )


def reading(stage: Stage) -> Iterator[None]:
    stage.durable("kept")
    stage.acl.admin.script_flush()
    yield
    stage.request(f"/events?channel={stage.channel}&history=1")


def reading_a_part(stage: Stage) -> Iterator[None]:
    """From where a client left to where the worker began to listen; no other worker knows it. Newer ones follow."""
    client = stage.listen()
    client.leave()
    stage.wait_unsubscribed()
    stage.listen()
    stage.durable("newer")
    yield
    stage.request(f"/events/{stage.channel}", f"Last-Event-ID: {client.last_event_id}")


def _count_as_the_previous_version(client: redis.Redis) -> None:
    generation, clock = (int(field or 0) for field in client.hmget("gateway.positions", "generation", "clock"))
    client.hset("gateway.clock", "last", f"{generation}-{clock + 1}")


def reading_a_part_beside_the_previous_version(stage: Stage) -> Iterator[None]:
    client = stage.listen()
    client.leave()
    stage.wait_unsubscribed()
    _count_as_the_previous_version(stage.acl.admin)
    stage.listen()
    stage.durable("newer")
    yield
    stage.request(f"/events/{stage.channel}", f"Last-Event-ID: {client.last_event_id}")


def listening_to_a_pattern_beside_the_previous_version(stage: Stage) -> Iterator[None]:
    _count_as_the_previous_version(stage.acl.admin)
    stage.durable("kept")
    yield
    stage.request("/events?pattern=news*&history=1")


def making_a_ticket(stage: Stage) -> Iterator[None]:
    yield
    body = b'{"channels": ["news"]}'
    headers = (f"Authorization: {bearer('bob')['Authorization']}", f"Content-Length: {len(body)}")
    stage.request("/ticket", *headers, method="POST", body=body)


def showing_a_ticket(stage: Stage) -> Iterator[None]:
    ticket = ask_for_ticket(stage.worker)
    yield
    stage.request(f"/events?ticket={ticket}")


def finding_another_secret(stage: Stage) -> Iterator[None]:
    """One that no notice has announced; what isn't signed makes the worker look."""
    (library,) = stage.acl.admin.function_list("gateway_*", withcode=True)
    text = dict(zip(library[::2], library[1::2], strict=True))[b"library_code"].decode()
    former = text.partition("local SECRET = '")[2].partition("'")[0]
    serial = text.partition("serial of the secret: ")[2].partition("\n")[0]
    text = text.replace(f"SECRET = '{former}'", f"SECRET = '{uuid4().hex}'")
    text = text.replace(f"secret: {serial}\n", f"secret: {int(serial) + 1}\n")
    yield
    stage.acl.admin.function_load(text, replace=True)
    while stage.acl.denied("worker") == set():
        stage.acl.admin.publish("gateway.tick.1", TICK)
        yield


USES: dict[Use, str] = {
    connecting: (
        "~gateway.* ~gateway:revoked &gateway.* +client|setname +select +info +time +subscribe +publish +eval +fcall "
        "+function|list +hmget +hget +hset +zrangebyscore"
    ),
    connecting_to_an_empty_redis: "+function|load +function|delete +hsetnx",
    listening: "&news*",
    leaving: "+unsubscribe",
    listening_to_a_pattern: "+psubscribe +hscan",
    leaving_a_pattern: "+punsubscribe",
    publishing: "~news* +hdel +xadd +xrevrange +xtrim +del +exists +pexpire +zadd +zrem +zrevrangebyscore "
    "+zremrangebyscore",
    reading: "+evalsha +script|load",
    reading_a_part: "+multi +exec +pubsub|numsub +xrange",
    reading_a_part_beside_the_previous_version: "+xlen",
    listening_to_a_pattern_beside_the_previous_version: "+scan",
    finding_another_secret: "+ping",
    making_a_ticket: "~gateway:ticket:* +set",
    showing_a_ticket: "+mget",
    ending: "+get",
}
WORKER = worker_rules("+psubscribe", "+select", "+scan")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("stage")
    with RedisServer(directory) as server:
        stage = Stage(directory, server, WORKER)
        with stage.worker, stage.opened:
            yield stage


@pytest.mark.parametrize("rule", WORKER[2:])
def test_a_worker_needs_each_of_them(stage: Stage, rule: str) -> None:
    (use,) = [use for use, rules in USES.items() if rule in rules.split()]
    stage.begin()
    doing = use(stage)
    next(doing)
    assert stage.acl.denied("worker") == set()
    stage.acl.allow("worker", [each for each in WORKER if each != rule])
    wait_until(lambda: (next(doing, None), _is_denied(stage.acl, "worker", rule))[-1], f"{rule} is missed")


PUBLISHER = [rule for rule in documented("publisher")[0] if not rule.startswith("-")]


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acl]:
    """A Redis with functions, and without a worker."""
    directory = tmp_path_factory.mktemp("functions")
    with RedisServer(directory) as server:
        acl = Acl(server, database=1)
        gateway("publish", "news", "first", "--durable", url=acl.url("test"))
        yield acl


@pytest.mark.parametrize("rule", PUBLISHER[2:])
def test_a_publisher_needs_each_of_them(functions: Acl, rule: str) -> None:
    functions.allow("publisher", [each for each in PUBLISHER if each != rule])
    functions.forget()
    with redis.Redis.from_url(
        functions.url("publisher"), client_name="gateway-publish", driver_info=None
    ) as publisher:
        for empty in (False, True):
            channel = f"news.{uuid4().hex[:8]}"
            if empty:
                functions.admin.flushall()
            leftovers(functions.admin, channel)
            with suppress(redis.RedisError):
                publisher.fcall("gateway_publish", 1, channel, "durable")
            with suppress(redis.RedisError):
                publisher.fcall("gateway_end", 1, channel)
            with suppress(redis.RedisError):
                publisher.publish(channel, "plain")
    assert _is_denied(functions, "publisher", rule)


def _is_denied(acl: Acl, user: str, rule: str) -> bool:
    kinds = {"+": "command", "~": "key", "&": "channel"}
    denied = acl.denied(user)
    if rule[0] == "+":
        return ("command", rule[1:]) in denied
    return any(kind == kinds[rule[0]] for kind, _ in denied)
