"""Tokens made for Mercure hubs."""

import time
from typing import Any

import jwt
import pytest

from gateway.auth.authority import Authority, authority_of
from gateway.auth.credentials import Credentials
from gateway.auth.errors import Forbidden, Unauthorized
from gateway.auth.mercure import template
from gateway.metrics import Metrics
from gateway.settings import Settings, SettingsError

pytestmark = pytest.mark.anyio

SECRET = "!ChangeThisMercureHubJWTSecretKey!"
HUB, ISSUER = "https://hub.example.com/.well-known/mercure", "https://issuer.example.com"
DETAIL = "https://mercure.rocks/authorization-detail"

# The token that Mercure's documentation and its demo show.
DOCUMENTED = (
    "eyJhbGciOiJIUzI1NiJ9.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdLCJzdWJzY3JpYmUiOlsiaHR0cHM6Ly9leGFtcGxlLmNvbS9teS1wcml2"
    "YXRlLXRvcGljIiwie3NjaGVtZX06Ly97K2hvc3R9L2RlbW8vYm9va3Mve2lkfS5qc29ubGQiLCIvLndlbGwta25vd24vbWVyY3VyZS9zdWJzY3Jp"
    "cHRpb25zey90b3BpY317L3N1YnNjcmliZXJ9Il0sInBheWxvYWQiOnsidXNlciI6Imh0dHBzOi8vZXhhbXBsZS5jb20vdXNlcnMvZHVuZ2xhcyIs"
    "InJlbW90ZUFkZHIiOiIxMjcuMC4wLjEifX19.KKPIikwUzRuB3DTpVw6ajzwSChwFw5omBMmMcWKiDcM"
)


def authority(*versions: str, **settings: Any) -> Authority:
    beside: dict[str, Any] = {"jwt_audience": [HUB], "jwt_issuer": [ISSUER]} if "1.0" in versions else {}
    made = authority_of(Settings(jwt_secret=SECRET, mercure_tokens=versions, **beside, **settings), Metrics())
    assert made is not None
    return made


async def subscribes(by: Authority, token: str, channel: str) -> bool:
    try:
        await by.subscriber(Credentials((token,)), (channel,), (), "")
    except Forbidden:
        return False
    return True


async def publishes(by: Authority, token: str, channel: str) -> bool:
    try:
        await by.publisher(Credentials((token,)), channel, "")
    except Forbidden:
        return False
    return True


def early(claim: object, name: str = "mercure", **claims: Any) -> str:
    return jwt.encode({name: claim, **claims}, SECRET)


async def test_the_documented_token() -> None:
    by = authority("0.x")
    for channel in (
        "https://example.com/my-private-topic",
        "https://example.com/demo/books/1.jsonld",
        "http://a.b.example:8080/x/demo/books/abc.jsonld",
        "/.well-known/mercure/subscriptions/topic/subscriber",
        "/.well-known/mercure/subscriptions",
    ):
        assert await subscribes(by, DOCUMENTED, channel), channel
    for channel in (
        "https://example.com/my-private-topic/",
        "https://example.com/demo/books/1/2.jsonld",
        "https://example.com/demo/books/1.html",
        "{scheme}://{+host}/demo/books/{id}.json",
        "/.well-known/mercure/subscriptions/a/b/c",
    ):
        assert not await subscribes(by, DOCUMENTED, channel), channel
    assert await publishes(by, DOCUMENTED, "anything")


async def test_selectors_are_no_globs() -> None:
    by = authority("0.x")
    token = early({"subscribe": ["a*", "b?", "[c]", "user.{sub}", "https://x/{id}"]}, sub="alice")
    assert await subscribes(by, token, "a*")
    assert await subscribes(by, token, "user.{sub}"), "a selector stands for itself, too"
    assert await subscribes(by, token, "https://x/7")
    assert await subscribes(by, token, "user.bob"), "{sub} is a variable of the template like any other"
    for channel in ("ab", "bx", "c", "https://x/7/8", "user.a/b"):
        assert not await subscribes(by, token, channel), channel
    with pytest.raises(Forbidden):
        await by.subscriber(Credentials((token,)), (), ("a*",), "")
    everything = early({"subscribe": ["*"]})
    assert await subscribes(by, everything, "anything")
    await by.subscriber(Credentials((everything,)), (), ("a*",), "")
    assert not await publishes(by, everything, "anything")


async def test_the_claim_may_be_a_url() -> None:
    by = authority("0.x")
    assert await subscribes(by, early({"subscribe": ["a"]}, "https://mercure.rocks/"), "a")
    with pytest.raises(Unauthorized, match="expired"):
        await subscribes(by, early({"subscribe": ["a"]}, exp=time.time() - 60), "a")
    assert await subscribes(by, early({"subscribe": ["a"]}, aud="somebody"), "a")
    wrong: list[object] = [
        7,
        ["a"],
        {"subscribe": "a"},
        {"subscribe": [7]},
        {"publish": {}},
        {"subscribe": ["a"] * 2000},
    ]
    for claim in wrong:
        with pytest.raises(Unauthorized):
            await subscribes(by, early(claim), "a")


async def test_versions_are_accepted_where_a_setting_says_so() -> None:
    assert not await subscribes(authority(), DOCUMENTED, "https://example.com/my-private-topic")
    with pytest.raises(Unauthorized):
        await subscribes(authority("1.0"), DOCUMENTED, "https://example.com/my-private-topic")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("/{a}", ["/", "/x", "/a.b-c_d~e", "/%C3%A9"], ["/a/b", "/a,b", "/é", "/%G0", "x", "/a?b"]),
        ("/{a,b}", ["/x", "/x,y"], ["/x,y,z", "/x/y"]),
        ("{+a}", ["", "https://x/y?z#a", "a,b"], ["é", "a b", '"']),
        ("x{#a}", ["x", "x#y/z"], ["x/y", "y"]),
        ("x{.a,b}", ["x", "x.y", "x.y.z"], ["x.y.z.w", "xy"]),
        ("x{/a,b}", ["x", "x/y", "x/y/z"], ["x/y/z/w", "xy"]),
        ("user{id}x", ["userx", "user1x", "userxx"], ["user1", "user/x"]),
        ("a.b{c}", ["a.bc"], ["axbc"]),
        ("{a}{b}{c}{d}{e}", ["abc"], ["a/b"]),
    ],
)
def test_uri_templates(text: str, inside: list[str], outside: list[str]) -> None:
    matches = template(text)
    assert matches is not None
    assert [name for name in inside + outside if matches(name)] == inside


@pytest.mark.parametrize(
    "text", ["", "plain", "{}", "{?a}", "{&a}", "{;a}", "{a*}", "{a:3}", "{=a}", "{a b}", "{a}" * 6, "{a,}", "{,}"]
)
def test_templates_that_match_nothing(text: str) -> None:
    assert template(text) is None


def access(details: object, typ: str = "at+jwt", **claims: Any) -> str:
    given = {
        "exp": int(time.time()) + 600, "aud": [HUB, "x"], "iss": ISSUER, "authorization_details": details, **claims,
    }  # fmt: skip
    return jwt.encode({key: each for key, each in given.items() if each is not None}, SECRET, headers={"typ": typ})


def detail(*topics: object, actions: object = ("subscribe",), **more: Any) -> dict[str, Any]:
    return {"type": DETAIL, "actions": actions, "topics": list(topics), **more}


async def test_access_tokens() -> None:
    by = authority("1.0")
    exact, books = {"match": "a*"}, {"match": "https://example.com/books/:id", "match_type": "urlpattern"}
    token = access([detail(exact, books), detail({"match": "c"}, actions=["publish", "later"], payload={"a": 1})])
    assert [await subscribes(by, token, name) for name in ("a*", "https://example.com/books/1")] == [True, True]
    for name in ("ab", "https://example.com/books/1/2", "http://[", "c", "books"):
        assert not await subscribes(by, token, name), name
    assert await publishes(by, token, "c")
    assert not await publishes(by, token, "a*")
    everything = access([detail({"match": "*"}, actions=["publish", "subscribe"])], "application/at+jwt")
    assert await subscribes(by, everything, "anything")
    assert await publishes(by, everything, "anything")
    others = access([{"type": "https://example.com/other", "topics": 7}, detail({"match": "a"}, actions=["sing"])])
    assert not await subscribes(by, others, "a")


@pytest.mark.parametrize(
    "token",
    [
        access([detail({"match": "a"})], exp=None),
        access([detail({"match": "a"})], exp=1),
        access([detail({"match": "a"})], aud="https://other.example.com"),
        access([detail({"match": "a"})], aud=None),
        access([detail({"match": "a"})], iss="https://evil.example.com"),
        access([detail({"match": "a"})], iss=None),
        access([detail({"match": "a"}, {"match": "b", "match_type": "regexp"})]),
        access([detail({"match": "a"}, {"match": "b", "match_type": None})]),
        access([detail({"match": "a"}, {"match": "books/:id", "match_type": "urlpattern"})]),
        access([detail({"match": "a"}, {"match": 7})]),
        access([detail({"match": "a"}, {})]),
        access([detail({"match": "a"}, "b")]),
        access([detail({"match": "a"}), {"type": DETAIL, "actions": ["subscribe"]}]),
        access([detail({"match": "a"}), detail({"match": "b"}, actions="subscribe")]),
        access([detail({"match": "a"}), 7]),
        access({"type": DETAIL}),
    ],
)  # fmt: skip
async def test_access_tokens_that_are_rejected(token: str) -> None:
    with pytest.raises(Unauthorized):
        await subscribes(authority("1.0"), token, "a")


async def test_other_types_of_tokens_are_no_access_tokens() -> None:
    by = authority("1.0")
    for typ in ("JWT", "at", "jwt+at"):
        assert not await subscribes(by, access([detail({"match": "a"})], typ), "a")


def test_the_setting_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"1\.0 needs jwt_audience"):
        Settings(jwt_secret=SECRET, mercure_tokens=("1.0",))
    with pytest.raises(SettingsError, match=r"2\.0"):
        Settings.load({"mercure_tokens": "2.0"})
