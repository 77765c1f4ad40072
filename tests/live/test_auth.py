"""Tokens: who may subscribe, who may publish, and what happens when a token ends."""

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

SECRET = "a secret that is long enough for anybody"


def token(sub: str | None = "alice", seconds: float | None = 600, **claim: Any) -> str:
    claims: dict[str, Any] = {"gateway": claim}
    if sub is not None:
        claims["sub"] = sub
    if seconds is not None:
        claims["exp"] = time.time() + seconds
    return jwt.encode(claims, SECRET, "HS256")


def bearer(**claim: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claim)}"}


@pytest.fixture(scope="module", params=["direct", "portable"])
def guarded(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    with Worker(
        tmp_path_factory.mktemp("guarded"),
        redis_server.url,
        http_publish=False,
        delivery=request.param,
        jwt_secret=SECRET,
        jwt_leeway=0,
        expiry_notice=2,
        public_channels=["open.*"],
        allowed_patterns=["*"],
        cors_origins=["https://www.example.com"],
        cors_credentials=True,
        access_log=True,
    ) as running:
        yield running


def refused(worker: Worker, status: int, channel: str = "closed", **request: Any) -> str:
    answer = httpx.get(f"{worker.url}/events", params={"channel": channel, **request.pop("params", {})}, **request)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    detail: str = answer.json()["detail"]
    return detail


def test_without_a_token_only_public_channels_are_open(guarded: Worker, redis_server: RedisServer) -> None:
    assert "may not subscribe to channel 'closed'" in refused(guarded, 401)
    assert "may not subscribe to channel 'openness'" in refused(guarded, 401, "openness")
    assert "may not subscribe to pattern '*'" in refused(guarded, 401, "open.a", params={"pattern": "*"})
    with open_stream(guarded.url, "open.a", params=[("pattern", "open.*")]) as stream, redis_server.client() as redis:
        redis.publish("open.a", "hello")
        assert stream.next().data == "hello"


@pytest.mark.parametrize("way", ["header", "lower case", "cookie", "quoted cookie", "POST"])
def test_a_token_opens_what_it_names(guarded: Worker, redis_server: RedisServer, way: str) -> None:
    text = token(subscribe=["closed", "user.{sub}"])
    ways: dict[str, dict[str, Any]] = {
        "header": {"headers": {"Authorization": f"Bearer {text}"}},
        "lower case": {"headers": {"authorization": f"bearer   {text}"}},
        "cookie": {"headers": {"Cookie": f"a=b; gateway_token={text}; c=d"}},
        "quoted cookie": {"headers": {"Cookie": f'gateway_token="{text}"'}},
        "POST": {
            "method": "POST",
            "headers": {"Authorization": f"Bearer {text}"},
            "json": {"channels": ["closed", "user.alice"]},
        },
    }
    with (
        open_stream(guarded.url, () if way == "POST" else ["closed", "user.alice"], **ways[way]) as stream,
        redis_server.client() as redis,
    ):
        redis.publish("user.alice", "hello")
        assert stream.next().data == "hello"


def test_what_a_token_does_not_name_stays_closed(guarded: Worker) -> None:
    headers = bearer(subscribe=["news.*", "user.{sub}"])
    before = metric(guarded, "unauthorized_requests_total", reason="forbidden")
    assert "channel 'user.bob'" in refused(guarded, 403, "user.bob", headers=headers)
    assert "pattern 'n*'" in refused(guarded, 403, "news.a", headers=headers, params={"pattern": "n*"})
    assert "channel 'x'" in refused(guarded, 403, "x", headers=bearer(publish=["*"], admin=True))
    assert metric(guarded, "unauthorized_requests_total", reason="forbidden") == before + 3
    with open_stream(guarded.url, "open.a", headers=headers, params=[("pattern", "news.b*")]):
        pass


@pytest.mark.parametrize("channel", ["closed", "open.a"])
def test_a_bad_token_is_never_nobody(guarded: Worker, channel: str) -> None:
    """Who was let in as a stranger would not notice that the token has expired, and miss what it is for."""
    everything: dict[str, Any] = {"subscribe": ["*"]}
    for text, why in (
        (token(seconds=-1, **everything), "expired"),
        (jwt.encode({"gateway": everything}, SECRET[::-1], "HS256"), "signature is wrong"),
        ("nonsense", "no JWT"),
        ("a.b.c", "no JWT"),
    ):
        for headers in ({"Authorization": f"Bearer {text}"}, {"Cookie": f"gateway_token={text}"}):
            assert why in refused(guarded, 401, channel, headers=headers)


def test_tokens_in_the_query_are_off(guarded: Worker) -> None:
    """URLs are logged everywhere."""
    text = token(subscribe=["*"])
    for name in ("token", "%74oken"):
        answer = httpx.get(f"{guarded.url}/events?channel=closed&{name}={text}")
        assert answer.status_code == 401
        assert "setting query_tokens" in answer.json()["detail"]
    assert text not in guarded.output


def test_tokens_in_the_query_where_a_setting_says_so(redis_server: RedisServer, tmp_path: Any) -> None:
    with Worker(tmp_path, redis_server.url, jwt_secret=SECRET, query_tokens=True, access_log=True) as worker:
        text = token(subscribe=["closed"])
        with open_stream(worker.url, "closed", params=[("token", text)]):
            pass
        assert httpx.get(f"{worker.url}/events?channel=other&token={text}").status_code == 403
        assert httpx.get(f"{worker.url}/events?channel=closed&token=").status_code == 401
        headers = {"Authorization": f"Bearer {token(subscribe=[])}"}
        assert httpx.get(f"{worker.url}/events?channel=closed&token={text}", headers=headers).status_code == 403
        answer = httpx.post(f"{worker.url}/publish/x?token={token(publish=['x'])}", content="hello")
        assert answer.status_code == 200
        assert text not in worker.output
        assert "token=…" in worker.output


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "SELF", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://www.example.com", "Sec-Fetch-Site": "cross-site"}, 200),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
    ids=str,
)
def test_a_cookie_counts_for_pages_that_may_use_it(guarded: Worker, headers: dict[str, str], status: int) -> None:
    """A browser sends it for every page that makes it ask, also with an <img>."""
    headers = {name: value.replace("SELF", guarded.url) for name, value in headers.items()}
    request = {"Cookie": f"gateway_token={token(subscribe=['closed'], publish=['closed'])}", **headers}
    answer = httpx.head(f"{guarded.url}/events?channel=closed", headers=request)
    assert answer.status_code == status
    answer = httpx.post(f"{guarded.url}/publish/closed", headers=request, content="hello")
    assert answer.status_code == status
    answer = httpx.head(f"{guarded.url}/events?channel=closed", headers=bearer(subscribe=["closed"]) | headers)
    assert answer.status_code == 200, "no page can send another site's header without being asked about it first"


@pytest.mark.parametrize("origins", ["*", "https://*.example.com", "https://www.example.com"])
def test_pages_that_may_read_may_not_use_cookies(redis_server: RedisServer, tmp_path: Path, origins: str) -> None:
    """`cors_origins=*` let every page of the world publish with its visitor's cookie."""
    headers = {
        "Cookie": f"gateway_token={token(subscribe=['closed'], publish=['closed'])}", "Content-Type": "text/plain",
    }  # fmt: skip
    with Worker(tmp_path, redis_server.url, jwt_secret=SECRET, cors_origins=origins) as worker:
        for origin in ("https://www.example.com", "https://evil.example", "null"):
            request = headers | {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            assert httpx.head(f"{worker.url}/events?channel=closed", headers=request).status_code == 403
            assert httpx.post(f"{worker.url}/publish/closed", headers=request, content="x").status_code == 403
        own = headers | {"Origin": worker.url}
        assert httpx.post(f"{worker.url}/publish/closed", headers=own, content="x").status_code == 200


def test_no_log_line_has_a_token_in_it(guarded: Worker) -> None:
    text = token(subscribe=["*"])
    for name in ("token", "Token", "access_token", "ticket", "authorization", "&amp;token", "t%6Fken", ";token"):
        httpx.get(f"{guarded.url}/events?channel=closed&{name}={text}")
    assert text[-20:] not in guarded.output


def test_several_tokens_open_several_channels(redis_server: RedisServer, tmp_path: Path) -> None:
    """Some gateways' tokens are for one channel each."""
    one, other = (jwt.encode({"sub": "alice", "channel": name}, SECRET, "HS256") for name in ("a", "b"))
    stranger = jwt.encode({"sub": "bob", "channel": "b"}, SECRET, "HS256")
    with (
        Worker(
            tmp_path, redis_server.url, jwt_secret=SECRET, centrifugo_tokens="subscription", query_tokens=True,
            anycable_secret="s3Krit",
        ) as worker,
        redis_server.client() as redis,
    ):  # fmt: skip
        chat = "ImNoYXQ6MjAyMSI=--f9ee45dbccb1da04d8ceb99cc820207804370ba0d06b46fc3b8b373af1315628"
        body = {"channels": ["a", "b", "chat:2021"], "tokens": [one, other, chat]}
        with open_stream(worker.url, method="POST", json=body) as stream:
            redis.publish("chat:2021", "hello")
            assert stream.next().data == "hello"
        with open_stream(worker.url, ["a", "b"], params=[("token", one), ("token", other)]) as stream:
            redis.publish("b", "hello")
            assert stream.next().data == "hello"
        url = f"{worker.url}/events?channel=a&channel=b"
        assert httpx.get(f"{url}&token={one}").status_code == 403
        assert httpx.get(f"{url}&token={one}&token={stranger}").status_code == 401
        assert httpx.get(f"{url}&token={one}&token={other[:-2]}").status_code == 401
        assert httpx.get(f"{url}{f'&token={one}' * 101}").status_code == 400
        for tokens in ("a", [7], {"a": 1}):
            answer = httpx.post(f"{worker.url}/events", json={"channels": ["a"], "tokens": tokens})
            assert answer.status_code == 400


def test_mercures_tokens_where_mercures_clients_send_them(redis_server: RedisServer, tmp_path: Path) -> None:
    text = jwt.encode({"mercure": {"subscribe": ["https://example.com/books/{id}"]}}, SECRET, "HS256")
    channel = "https://example.com/books/1"
    with Worker(
        tmp_path, redis_server.url, jwt_secret=SECRET, mercure_tokens="0.x", query_tokens=True, access_log=True
    ) as worker:
        with open_stream(worker.url, channel, params=[("authorization", text)]):
            pass
        with open_stream(worker.url, channel, headers={"Cookie": f"mercureAuthorization={text}"}):
            pass
        with open_stream(worker.url, channel, headers={"Authorization": f"Bearer {text}"}):
            pass
        bad = f"mercureAuthorization={text}; gateway_token=nonsense"
        assert httpx.head(f"{worker.url}/events?channel={channel}", headers={"Cookie": bad}).status_code == 401
        assert httpx.get(f"{worker.url}/events?channel=other&authorization={text}").status_code == 403
        assert text not in worker.output
        assert "authorization=…" in worker.output


def test_publishing_always_needs_a_grant(guarded: Worker) -> None:
    def publish(channel: str, **request: Any) -> httpx.Response:
        return httpx.post(f"{guarded.url}/publish/{channel}", content="hello", **request)

    assert publish("open.a").status_code == 401
    assert publish("closed").status_code == 401
    assert publish("closed", headers=bearer(subscribe=["*"])).status_code == 403
    assert "'closed'" in publish("closed", headers=bearer(publish=["open.*"])).json()["detail"]
    assert publish("gateway.tick.0", headers=bearer(publish=["*"], admin=True)).status_code == 400
    with open_stream(guarded.url, "closed", headers=bearer(subscribe=["closed"])) as stream:
        assert publish("closed", headers=bearer(publish=["closed"])).json() == {"channel": "closed", "receivers": 1}
        assert stream.next().data == "hello"
    assert httpx.head(f"{guarded.url}/events?channel=closed").status_code == 401


def test_the_gateways_own_channels_are_never_open(guarded: Worker) -> None:
    for asked in ("channel=gateway.secret", "pattern=gateway.*", "channel=a&pattern=gateway.tick.0"):
        answer = httpx.get(f"{guarded.url}/events?{asked}", headers=bearer(subscribe=["*"]))
        assert answer.status_code == 400


def test_a_stream_ends_with_its_token(guarded: Worker, redis_server: RedisServer) -> None:
    headers = bearer(seconds=3, subscribe=["closed"])
    expected = jwt.decode(headers["Authorization"][7:], SECRET, ["HS256"], options={"verify_exp": False})["exp"]
    with open_stream(guarded.url, "closed", headers=headers) as stream, redis_server.client() as redis:
        told = stream.next()
        assert told.type == "gateway.expiring"
        assert json.loads(told.data) == {"at": round(expected)}
        assert time.time() < expected
        redis.publish("closed", "in time")
        assert stream.next().data == "in time"
        (last,) = stream.rest()
        assert time.time() >= expected - 0.05
        assert (last.type, json.loads(last.data)) == ("gateway.closing", {"reason": "expired"})
        assert stream.retry is not None
        assert len(stream.ids) == 4, "each has the stream's position, so that nothing is missed in between"
    assert "expired" in refused(guarded, 401, headers=headers | {"Last-Event-ID": stream.last_event_id})
    redis_server.client().publish("closed", "meanwhile")
    again = bearer(subscribe=["closed"]) | {"Last-Event-ID": stream.last_event_id}
    with open_stream(guarded.url, "closed", headers=again) as stream:
        assert stream.next().data == "meanwhile"


def test_a_stream_without_an_end_goes_on(guarded: Worker) -> None:
    with open_stream(guarded.url, "open.a", headers=bearer(seconds=None)) as stream:
        httpx.post(f"{guarded.url}/publish/open.a", content="hello", headers=bearer(publish=["open.a"]))
        assert stream.next().data == "hello"


def test_the_command_makes_tokens_that_count(guarded: Worker) -> None:
    def mint(*arguments: str) -> str:
        made = subprocess.run(
            [sys.executable, "-m", "gateway", "token", "--jwt-secret", SECRET, *arguments],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return made.stdout.strip()

    text = mint("--sub", "bob", "--subscribe", "user.{sub}", "--subscribe", "news.*", "--expires", "15m")
    claims = jwt.decode(text, SECRET, ["HS256"])
    assert claims["exp"] - claims["iat"] == 900
    assert claims["gateway"] == {"subscribe": ["user.{sub}", "news.*"]}
    with open_stream(guarded.url, ["user.bob", "news.a"], headers={"Authorization": f"Bearer {text}"}):
        pass
    assert "exp" not in jwt.decode(mint("--expires", "never", "--admin"), SECRET, ["HS256"])


def test_everything_is_public_if_nothing_is_said(redis_server: RedisServer, tmp_path: Any) -> None:
    with Worker(tmp_path, redis_server.url) as worker:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Cookie": "gateway_token=nonsense"}):
            with open_stream(worker.url, "anything", headers=headers):
                pass
        assert worker.output.count("everything is public") == 1


def test_nothing_is_public_if_a_key_is_set(guarded: Worker) -> None:
    assert "everything is public" not in guarded.output
