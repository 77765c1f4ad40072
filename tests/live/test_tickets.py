"""Tickets: made on one worker, used once on any, and good for their own stream's reconnects."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from testing.http import metric
from testing.servers import RedisServer, Worker
from testing.stream import Stream, open_stream
from testing.transient import transient
from testing.waiting import wait_until

SECRET = "a secret that is long enough for anybody"
PROOF = re.compile(r"\.s[\w-]{22}$")


def bearer(sub: str | None = "alice", seconds: float = 600, **claim: Any) -> dict[str, str]:
    claims = {"iat": time.time() - 10, "exp": time.time() + seconds, "gateway": {"subscribe": ["*"], **claim}}
    text = jwt.encode(claims if sub is None else {"sub": sub, **claims}, SECRET, "HS256")
    return {"Authorization": f"Bearer {text}"}


def ask(worker: Worker, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return httpx.post(f"{worker.url}/ticket", json=body, headers=bearer() if headers is None else headers)


def make(
    worker: Worker,
    channels: Sequence[str] = ("news",),
    headers: dict[str, str] | None = None,
    **body: Any,
) -> str:
    answer = ask(worker, headers, channels=list(channels), **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    ticket: str = answer.json()["ticket"]
    return ticket


def status(worker: Worker, ticket: str, last_event_id: str = "", **params: str) -> int:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with httpx.stream("GET", f"{worker.url}/events", params={"ticket": ticket, **params}, headers=headers) as answer:
        return answer.status_code


def again(stream: Stream) -> dict[str, str]:
    """What an EventSource sends when it reconnects."""
    return {"Last-Event-ID": stream.last_event_id}


def settings(**more: Any) -> dict[str, Any]:
    return {"jwt_secret": SECRET, "jwt_leeway": 0, "allowed_patterns": ["*"], "access_log": True, **more}


@pytest.fixture(scope="module")
def workers(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """Two, with different ways to a socket."""
    path = tmp_path_factory.mktemp("workers")
    more = settings(public_channels=["open.*"], channel_prefix="tickets:")
    with (
        Worker(path, redis_server.url, delivery="direct", **more) as one,
        Worker(path, redis_server.url, delivery="portable", **more) as other,
    ):
        yield [one, other]


@pytest.fixture(params=["direct", "portable"])
def pair(request: pytest.FixtureRequest, workers: list[Worker]) -> list[Worker]:
    """Both, the one whose way it is first."""
    return workers if request.param == "direct" else workers[::-1]


def publish(server: RedisServer, channel: str, *texts: str) -> None:
    with server.client() as client:
        for text in texts:
            client.publish(f"tickets:{channel}", text)


def with_id(data: str) -> str:
    return json.dumps({"event": "x", "data": data, "id": "own"})


def test_any_worker_takes_it_once(pair: list[Worker], redis_server: RedisServer, channel: str) -> None:
    one, other = pair
    ticket = make(one, [channel])
    with open_stream(other.url, params=[("ticket", ticket)]) as stream:
        publish(redis_server, channel, "hello")
        assert stream.next().data == "hello"
        for worker in pair:
            assert status(worker, ticket) == 401
            answer = httpx.get(f"{worker.url}/events?ticket={ticket}&channel={channel}", headers=bearer())
            assert answer.status_code == 401, "whatever else it brings"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"] == "The ticket has been used."
        publish(redis_server, channel, "still there")
        assert stream.next().data == "still there"


def test_only_one_of_many_at_once_gets_in(pair: list[Worker], channel: str) -> None:
    for _ in range(5):
        ticket = make(pair[0], [channel])
        with ThreadPoolExecutor(16) as pool:
            found = sorted(pool.map(status, pair * 8, [ticket] * 16))
        assert found == [200] + [401] * 15


def test_its_stream_comes_back_to_any_worker_and_misses_nothing(
    pair: list[Worker], redis_server: RedisServer, channel: str
) -> None:
    """With and without ids of their publisher, which are alone on other streams of one channel."""
    ticket = make(pair[0], [channel])
    heard: list[str] = []
    headers: dict[str, str] = {}
    with open_stream(pair[1].url, channel, headers=bearer()) as plain:
        for number in range(6):
            with open_stream(pair[number % 2].url, params=[("ticket", ticket)], headers=headers) as stream:
                if number:
                    heard += [stream.next().data, stream.next().data]
                publish(redis_server, channel, f"{number}a", with_id(f"{number}b"))
                heard += [stream.next().data, stream.next().data]
                headers = again(stream)
                assert all(map(PROOF.search, stream.ids))
            publish(redis_server, channel, f"{number}c", with_id(f"{number}d"))
        everything = [f"{number}{letter}" for number in range(6) for letter in "abcd"]
        assert heard == everything[:-2]
        assert [plain.next().data for _ in everything] == everything
        assert not [id_ for id_ in plain.ids if PROOF.search(id_)]


def test_whoever_has_read_the_url_has_nothing(pair: list[Worker], redis_server: RedisServer, channel: str) -> None:
    ticket, others = make(pair[0], [channel]), make(pair[0], [channel])
    with (
        open_stream(pair[0].url, params=[("ticket", ticket)]) as stream,
        open_stream(pair[1].url, params=[("ticket", others)]) as other,
        open_stream(pair[1].url, channel, headers=bearer()) as plain,
    ):
        publish(redis_server, channel, "hello")
        assert stream.next().data == other.next().data == plain.next().data == "hello"
        own = stream.last_event_id
        guesses = [
            PROOF.sub("", own), own[:-1], own[:-1] + ("A" if own[-1] != "A" else "B"), own + "x", own.upper(),
            other.last_event_id, plain.last_event_id, "2.0.0", ".s" + own[-22:], own[-22:], f"x{own[-24:]}",
        ]  # fmt: skip
        for guess in guesses:
            for worker in pair:
                assert status(worker, ticket, guess) == 401, guess
        assert status(pair[0], ticket, own) == 200


def test_channels_and_patterns(pair: list[Worker], redis_server: RedisServer, channel: str) -> None:
    one, other = pair
    a, b = f"{channel}.a", f"{channel}.b"
    ticket = make(one, [a], patterns=[f"{channel}.b*"])
    for asked in ({"channel": b}, {"channel": "open.x"}, {"pattern": "*"}, {"pattern": a}):
        answer = httpx.get(f"{other.url}/events", params={"ticket": ticket, **asked})
        assert answer.status_code == 401
        (name,) = asked.values()
        assert f"The ticket is not for {next(iter(asked))} {name!r}." == answer.json()["detail"]
    assert httpx.get(f"{other.url}/events/{b}", params={"ticket": ticket}).status_code == 401
    with (
        open_stream(one.url, params=[("ticket", ticket)]) as both,
        open_stream(f"{other.url}/events/{a}", params=[("ticket", make(one, [a, b]))]) as part,
    ):
        publish(redis_server, a, "1")
        publish(redis_server, b, "2")
        publish(redis_server, a, "3")
        assert [both.next().data for _ in range(3)] == ["1", "2", "3"]
        assert [part.next().data for _ in range(2)] == ["1", "3"]
        assert both.opened == [f'{{"channels":["{a}"],"patterns":["{channel}.b*"]}}']
    with open_stream(other.url, params=[("ticket", ticket)], headers=again(both)):
        pass


def test_what_else_a_stream_may_ask_for(pair: list[Worker], redis_server: RedisServer) -> None:
    one, other = pair
    name = f"kept{time.time_ns()}"
    for text in ("1", "2", "3"):
        answer = httpx.post(f"{one.url}/publish/{name}?durable=1", content=text, headers=bearer(publish=["*"]))
        assert answer.status_code == 200
    params = [("ticket", make(one, [name])), ("history", "2"), ("events", "channel")]
    with open_stream(other.url, params=params, headers={"Accept-Encoding": "gzip"}) as stream:
        assert [(event.type, event.data) for event in stream.take(2)] == [(name, "2"), (name, "3")]
        publish(redis_server, name, "4")
        assert stream.next().data == "4"
        assert all(map(PROOF.search, stream.ids))
    publish(redis_server, name, "5")
    with open_stream(one.url, params=params, headers=again(stream)) as stream:
        assert stream.next().data == "5"
    # An id of another stream may begin it.
    more = [("ticket", make(one, [name, "kept"])), ("new", "kept"), ("last_event_id", stream.last_event_id)]
    publish(redis_server, name, "6")
    with open_stream(other.url, params=more) as stream:
        publish(redis_server, "kept", "7")
        assert [event.data for event in stream.take(2)] == ["6", "7"]
    answer = httpx.get(f"{one.url}/events", params=[("ticket", make(one, [name])), ("new", "other")])
    assert answer.status_code == 400
    with open_stream(one.url, method="POST", params=[("ticket", make(one, [name]))], json={"channels": [name]}):
        pass
    with open_stream(one.url, method="POST", params=[("ticket", make(one, [name]))], json={}):
        pass
    with open_stream(one.url, method="POST", json={"ticket": make(one, [name])}):
        pass
    for body in ({"ticket": "garbage", "channels": ["open.a"]}, {"ticket": "", "channels": ["open.a"]}):
        assert httpx.post(f"{one.url}/events", json=body).status_code == 401
    assert httpx.post(f"{one.url}/events", json={"ticket": 7}).status_code == 400
    answer = httpx.post(f"{one.url}/events?ticket={make(one, [name])}", json={"ticket": make(one, [name])})
    assert answer.status_code == 400


def test_it_expires(workers: list[Worker], redis_server: RedisServer, channel: str) -> None:
    one, other = workers
    ticket, used = make(one, [channel], seconds=1), make(one, [channel], seconds=1)
    with open_stream(one.url, params=[("ticket", used)]) as stream:
        publish(redis_server, channel, "1")
        stream.next()
        wait_until(lambda: httpx.head(f"{other.url}/events?ticket={ticket}").status_code == 401, "it has expired")
        assert status(other, used) == 401
        assert status(other, used, stream.last_event_id) == 200, "its stream doesn't end with it"


def test_a_ticket_takes_what_a_stream_would_take(workers: list[Worker]) -> None:
    one, _ = workers
    for headers, body, expected, text in (
        ({}, {"channels": ["news"]}, 401, "Without a token you may not have a ticket"),
        ({}, {"channels": ["open.a"]}, 401, "Without a token you may not have a ticket"),
        ({"Authorization": "Bearer nonsense"}, {"channels": ["open.a"]}, 401, "no JWT"),
        (bearer(seconds=-1), {"channels": ["news"]}, 401, "expired"),
        (bearer(subscribe=["news"]), {"channels": ["news", "other"]}, 403, "'other'"),
        (bearer(subscribe=["news"]), {"patterns": ["n*"]}, 403, "'n*'"),
        (bearer(subscribe=["news"]), {"channels": ["news", "open.a"], "patterns": ["open.*"]}, 200, "ticket"),
        (bearer(), {"channels": ["gateway.tick.0"]}, 400, "gateway."),
        (bearer(), {"patterns": ["gateway.*"]}, 400, "gateway."),
        (bearer(), {}, 400, "Name at least one channel"),
        (bearer(), {"channels": []}, 400, "Name at least one channel"),
        (bearer(), {"channels": "news"}, 400, "array of strings"),
        (bearer(), {"channels": ["x"] * 3 + [f"{n}" for n in range(101)]}, 400, "max_stream_channels"),
        (bearer(), {"channels": ["news"], "seconds": 1.5}, 200, "ticket"),
    ):  # fmt: skip
        answer = httpx.post(f"{one.url}/ticket", content=json.dumps(body), headers=headers)
        assert answer.status_code == expected, (body, answer.text)
        assert text in answer.text
    impossible: list[Any] = [0, 0.9, 300.1, -1, "60", None, True, [], 10**300]
    for seconds in impossible:
        answer = ask(one, channels=["news"], seconds=seconds)
        assert answer.status_code == 400
        assert "a number from 1 to 300 (setting ticket_seconds)" in answer.json()["detail"]
    for content in (b"", b"{", b"[]", b'"x"', b"\xff"):
        assert httpx.post(f"{one.url}/ticket", content=content, headers=bearer()).status_code == 400
    assert httpx.post(f"{one.url}/ticket", content=b"x" * 70_000, headers=bearer()).status_code == 413
    assert httpx.get(f"{one.url}/ticket", headers=bearer()).status_code == 405
    assert httpx.post(f"{one.url}/ticket?ticket={make(one)}", json={"channels": ["news"]}).status_code == 401
    answer = httpx.post(f"{one.url}/publish/news?ticket={make(one)}", content="x")
    assert answer.status_code in (400, 401), "a ticket is for a stream"


def test_the_answer_says_until_when(workers: list[Worker]) -> None:
    for headers, body, seconds in ((bearer(), {}, 60), (bearer(), {"seconds": 7}, 7), (bearer(seconds=20), {}, 20)):
        before = time.time()
        answer = ask(workers[0], headers, channels=["news"], **body).json()
        assert before + seconds - 1 <= answer["expires_at"] <= time.time() + seconds


def test_its_stream_ends_with_what_it_was_made_with(redis_server: RedisServer, tmp_path: Path, channel: str) -> None:
    with Worker(tmp_path, redis_server.url, **settings(expiry_notice=1.5, ticket_stream_age=4)) as worker:
        for ticket in (make(worker, [channel], bearer(seconds=3)), make(worker, [channel])):
            with open_stream(worker.url, params=[("ticket", ticket)]) as stream:
                told, last = stream.rest()
            assert (told.type, last.type, json.loads(last.data)) == (
                "gateway.expiring", "gateway.closing", {"reason": "expired"}
            )  # fmt: skip
            assert abs(json.loads(told.data)["at"] - time.time()) < 5
            assert status(worker, ticket, stream.last_event_id) == 401


def test_revoked_before_it_is_used_and_after(private_redis: RedisServer, tmp_path: Path) -> None:
    with (
        Worker(tmp_path, private_redis.url, **settings()) as one,
        Worker(tmp_path, private_redis.url, **settings()) as other,
    ):
        ticket, used, bobs = make(one), make(one), make(one, headers=bearer("bob"))
        with open_stream(other.url, params=[("ticket", used)]) as stream:
            answer = httpx.post(f"{one.url}/revoke", json={"sub": "alice"}, headers=bearer("root", admin=True))
            assert answer.status_code == 200
            (last,) = stream.rest()
            assert json.loads(last.data) == {"reason": "revoked"}
        for worker in (one, other):
            wait_until(lambda worker=worker: status(worker, ticket) == 401, "it is known")  # type: ignore[misc]
            answer = httpx.get(f"{worker.url}/events?ticket={ticket}")
            assert answer.json()["detail"] == "The ticket has been revoked."
            assert status(worker, used, stream.last_event_id) == 401
            assert ask(worker, channels=["news"]).status_code == 401, "its token was issued before"
        assert status(one, bobs) == 200


def test_who_is_not_let_in_may_use_it_later(redis_server: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, redis_server.url, **settings(subject_streams=1)) as worker:
        ticket = make(worker)
        url = f"{worker.url}/events?ticket={ticket}"
        with open_stream(worker.url, "news", headers=bearer()):
            assert httpx.head(url).status_code == 200, "HEAD asks for no stream"
            answer = httpx.get(url)
            assert transient(answer.text).reason == "subject_limit"
            assert httpx.get(f"{url}&channel=other").status_code == 401
        wait_until(lambda: metric(worker, "streams") == 0, "it has left")
        assert status(worker, ticket) == 200
        assert status(worker, ticket) == 401


def test_a_redis_that_takes_nothing(private_redis: RedisServer, tmp_path: Path) -> None:
    """Whether the ticket was used can't be known then: whoever comes back says with its id that it is the same."""
    with Worker(tmp_path, private_redis.url, **settings()) as worker, private_redis.client() as redis:
        ticket = make(worker)
        redis.config_set("maxmemory", 1)
        assert ask(worker, channels=["news"]).status_code == 503
        for sent, place in (("2.1.2", "2.1.2"), (f"2.1.2.s{'x' * 22}", "2.1.2"), ("17", "17~2.0.1"), ("", "2.0.1")):
            headers = {"Last-Event-ID": sent} if sent else {}
            said = transient(httpx.get(f"{worker.url}/events?ticket={ticket}", headers=headers).text)
            assert said.reason == "auth_unavailable"
            assert said.id is not None
            assert PROOF.sub("", said.id) == place
        wait_until(lambda: metric(worker, "streams") == 0, "nobody is left")
        worker.wait_for_output("a ticket can't be looked up or kept: ")
        redis.config_set("maxmemory", 0)
        worker.wait_for_output("Redis counts again")
        # As if Redis had taken it, and only the answer had been lost.
        for text in ("1", "2"):
            answer = httpx.post(f"{worker.url}/publish/news?durable=1", content=text, headers=bearer(publish=["*"]))
            assert answer.status_code == 200
        params, headers = [("ticket", ticket), ("history", "2")], {"Last-Event-ID": said.id or ""}
        with open_stream(worker.url, params=params, headers=headers) as stream:
            redis.publish("news", "hello")
            assert [event.data for event in stream.take(3)] == ["1", "2", "hello"], "it has not begun before"
        assert status(worker, ticket, stream.last_event_id) == 200


def test_a_redis_that_is_away(private_redis: RedisServer, tmp_path: Path) -> None:
    more = settings(redis_connect_timeout=1, redis_backoff_max=0.1)
    with Worker(tmp_path, private_redis.url, **more) as worker:
        ticket = make(worker)
        private_redis.stop()
        assert transient(httpx.get(f"{worker.url}/events?ticket={ticket}").text).reason == "auth_unavailable"
        answer = ask(worker, channels=["news"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{worker.url}/events?ticket=nonsense").status_code == 401
        private_redis.start()
        worker.wait_ready()
        assert status(worker, ticket) == 401, "it went with Redis' data"


def test_limits(redis_server: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, redis_server.url, **settings(subject_ticket_rate=5, ticket_seconds=30)) as worker:
        found = [ask(worker, channels=["news"]).status_code for _ in range(30)]
        assert found[0] == 200
        assert 429 in found
        answer = ask(worker, channels=["news"])
        assert "setting subject_ticket_rate" in answer.text or answer.status_code == 200
        assert ask(worker, bearer("bob"), channels=["news"]).status_code == 200, "it is alice's limit"
        assert ask(worker, bearer("carol"), channels=["news"], seconds=31).status_code == 400
        assert ask(worker, bearer("carol"), channels=["news"]).json()["expires_at"] < time.time() + 31
        made = metric(worker, "tickets_total")
        assert made == found.count(200) + 2 + (answer.status_code == 200)


def test_the_names_in_a_ticket_have_a_limit(redis_server: RedisServer, tmp_path: Path) -> None:
    """Each stands in Redis for up to a day."""
    with Worker(tmp_path, redis_server.url, **settings(ticket_bytes=20)) as worker:
        assert ask(worker, channels=["x" * 10], patterns=["y" * 9 + "*"]).status_code == 200
        answer = ask(worker, channels=["x" * 10], patterns=["y" * 10 + "*"])
        assert answer.status_code == 400
        assert "setting ticket_bytes" in answer.json()["detail"]
        assert ask(worker, channels=["ä" * 10]).status_code == 200
        assert ask(worker, channels=["ä" * 11]).status_code == 400


def test_an_id_that_a_polyfill_adds_counts(pair: list[Worker], redis_server: RedisServer, channel: str) -> None:
    """It is newer than the one that the page has put into the URL."""
    for name in ("lastEventId", "lastEventID", "Last-Event-ID"):
        ticket = make(pair[0], [channel])
        with open_stream(pair[0].url, params=[("ticket", ticket), ("last_event_id", "2.1.2")]) as stream:
            publish(redis_server, channel, "hello")
            assert [event.type for event in stream.take(2)] == ["gateway.gap", "message"]
        params = {"ticket": ticket, "last_event_id": "2.1.2", name: stream.last_event_id}
        with httpx.stream("GET", f"{pair[1].url}/events", params=params) as answer:
            assert answer.status_code == 200


def test_where_everything_is_public_there_are_none(redis_server: RedisServer, tmp_path: Path) -> None:
    with Worker(tmp_path, redis_server.url) as worker:
        answer = ask(worker, {}, channels=["news"])
        assert answer.status_code == 403
        assert "Everything is public" in answer.json()["detail"]
        assert httpx.get(f"{worker.url}/events?ticket=x").status_code == 400
        assert status(worker, "x", channel="news") == 200, "who asks for a channel gets it"


def test_malformed_queries(workers: list[Worker]) -> None:
    one, _ = workers
    ticket = make(one)
    for query in (f"ticket={ticket}&ticket={ticket}", f"ticket={ticket}&strict=1&x=1", f"ticket={ticket}&channel="):
        assert httpx.get(f"{one.url}/events?{query}").status_code == 400
        assert httpx.post(f"{one.url}/events?{query}", json={}).status_code == 400
    for text in ("", "x", ticket[:-1], ticket + "x", "%00", "%F0%9F%98%80" * 8, "x" * 5000):
        assert httpx.get(f"{one.url}/events?ticket={text}").status_code == 401
    assert httpx.get(f"{one.url}/events?channel=open.a&ticket=").status_code == 401, "a bad ticket is never nobody's"
    with open_stream(one.url, params=[("ticket", ticket), ("strict", "1")]):
        pass


def test_nothing_of_it_is_logged_or_kept_in_clear(workers: list[Worker], redis_server: RedisServer) -> None:
    one, other = workers
    ticket = make(one, ["secret-channel"])
    with open_stream(other.url, params=[("ticket", ticket)]) as stream:
        publish(redis_server, "secret-channel", "hello")
        stream.next()
    proof = stream.last_event_id[-22:]
    assert status(other, ticket) == 401
    for name in ("last_event_id", "lastEventId", "lastEventID", "Last-Event-ID"):
        assert status(one, ticket, **{name: stream.last_event_id}) == 200
    for worker in workers:
        worker.wait_for_output("GET /events")
        assert ticket not in worker.output
        assert proof not in worker.output
    with redis_server.client() as redis:
        for key in redis.scan_iter("tickets:gateway:ticket:*"):
            content = redis.get(key) or b""
            assert ticket.encode() not in key + content
            assert proof.encode() not in content
            assert redis.pttl(key) > 0, "everything goes by itself"
