"""Tokens made for other gateways."""

import base64
import hmac
import json
from typing import Any

import jwt
import pytest

from gateway.auth.authority import Authority, authority_of
from gateway.auth.centrifugo import subscription_grant
from gateway.auth.credentials import Credentials
from gateway.auth.errors import Forbidden, Unauthorized
from gateway.auth.grant import Grant, grant_of, together
from gateway.auth.keys import secret_key
from gateway.auth.signed_streams import SignedStreams, anycable_key, turbo_key
from gateway.auth.tokens import Tokens
from gateway.metrics import Metrics
from gateway.settings import Settings

pytestmark = pytest.mark.anyio

SECRET = "a secret that is long enough for anybody"

# AnyCable's documentation (signed streams), and a Rails console: turbo-rails 2.0.
CHAT = "ImNoYXQ6MjAyMSI=--f9ee45dbccb1da04d8ceb99cc820207804370ba0d06b46fc3b8b373af1315628"
BOARD = "ImJvYXJkOjEi--7eadb36517dd962e290a5c55daad0a9a3ae0aa9a26ae0e72b7f78ae7eb0d5a3d"


# Centrifugo 6.9.1: `centrifugo gensubtoken -u 42 -s chat:index -t 0`, and `centrifugo gentoken -u 42 -t 0`.
SUBSCRIPTION = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImlhdCI6MTc5NTg3MDkzNiwiY2hhbm5lbCI6ImNoYXQ6aW5kZXgifQ."
    "gu5yn74jm1wHnwC91aVw75up0ubNgVNdu55GZnDglgc"
)
CONNECTION = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImlhdCI6MTc5NTg3MDkzNn0."
    "bnUvOaU_Dn_7ODe8v-1KHxI4kBroUMcYoQPHIF7Qowg"
)


def signed(name: object, key: bytes = b"s3Krit") -> str:
    text = base64.b64encode(json.dumps(name).encode()).decode()
    return f"{text}--{hmac.digest(key, text.encode(), 'sha256').hex()}"


def authority(**settings: Any) -> Authority:
    made = authority_of(Settings(**settings), Metrics())
    assert made is not None
    return made


async def allows(by: Authority, channel: str, *tokens: str) -> bool:
    try:
        await by.subscriber(Credentials(tokens), (channel,), (), "")
    except Forbidden:
        return False
    return True


def test_the_vendors_own_names() -> None:
    assert SignedStreams([anycable_key("s3Krit")]).grant(CHAT).subscribe.globs == ("chat:2021",)
    assert SignedStreams([turbo_key("testsecret123")]).grant(BOARD).subscribe.globs == ("board:1",)
    both = SignedStreams([anycable_key("s3Krit"), turbo_key("testsecret123")])
    assert [both.grant(name).subscribe.globs for name in (CHAT, BOARD)] == [("chat:2021",), ("board:1",)]


@pytest.mark.parametrize(
    "token",
    [
        "", "--", "a--b", CHAT[:-1], CHAT + "0", CHAT.upper(), CHAT.replace("--", "-"), CHAT.replace("--", "----"),
        CHAT + "--", CHAT + "--" + CHAT, " " + CHAT, CHAT + " ", CHAT.replace("=", ""), BOARD,
        CHAT.replace("f9ee", "F9EE"), CHAT.replace("ImNo", "ImNp"), CHAT + "é",
        signed(7), signed(None), signed(["chat"]), signed({"a": 1}), signed(""),
        f"bm8ganNvbg==--{hmac.digest(b's3Krit', b'bm8ganNvbg==', 'sha256').hex()}",
        f"!!--{hmac.digest(b's3Krit', b'!!', 'sha256').hex()}",
        "[" * 100_000,
    ],
    ids=lambda token: token[:30],
)  # fmt: skip
def test_what_is_no_signed_name(token: str) -> None:
    with pytest.raises(Unauthorized):
        SignedStreams([anycable_key("s3Krit")]).grant(token)


async def test_a_signed_name_opens_its_channel_only() -> None:
    by = authority(anycable_secret="s3Krit")
    assert await allows(by, "chat:2021", CHAT)
    assert not await allows(by, "chat:2022", CHAT)
    assert await allows(by, "a*", signed("a*"))
    assert not await allows(by, "ab", signed("a*")), "it is a name, not a glob"
    with pytest.raises(Forbidden):
        await by.subscriber(Credentials((signed("a*"),)), (), ("a*",), "")
    with pytest.raises(Forbidden):
        await by.publisher(Credentials((CHAT,)), "chat:2021", "")
    with pytest.raises(Unauthorized):
        await by.subscriber(Credentials((jwt.encode({"channel": "x"}, "s3Krit" * 6),)), ("x",), (), "")
    assert await allows(by, "chat:2021", CHAT, signed("other"))
    assert await allows(by, "other", CHAT, signed("other"))


async def test_signed_names_and_tokens_beside_each_other() -> None:
    by = authority(anycable_secret="s3Krit", jwt_secret=SECRET)
    own = jwt.encode({"sub": "alice", "gateway": {"subscribe": ["news"]}}, SECRET)
    assert await allows(by, "news", own)
    assert await allows(by, "chat:2021", CHAT)
    grant = await by.subscriber(Credentials((own, CHAT)), ("news", "chat:2021"), (), "")
    assert grant.sub == "alice"
    with pytest.raises(Unauthorized):
        await by.subscriber(Credentials((own, CHAT[:-1])), ("news",), (), "")


def centrifugo(**claims: Any) -> str:
    return jwt.encode(claims, SECRET)


async def test_centrifugos_own_tokens() -> None:
    by = authority(jwt_secret=SECRET, centrifugo_tokens="subscription")
    grant = await by.subscriber(Credentials((SUBSCRIPTION,)), ("chat:index",), (), "")
    assert (grant.sub, grant.expires_at, grant.issued_at) == ("42", None, 1795870936)
    assert not await allows(by, "chat:other", SUBSCRIPTION)
    assert not await allows(by, "chat:index", CONNECTION)


async def test_centrifugos_subscription_tokens_are_for_one_channel() -> None:
    by = authority(jwt_secret=SECRET, centrifugo_tokens="subscription")
    assert await allows(by, "chat:index", centrifugo(sub="42", channel="chat:index"))
    assert not await allows(by, "chat:other", centrifugo(sub="42", channel="chat:index"))
    assert not await allows(by, "ab", centrifugo(channel="a*")), "it is a name, not a glob"
    assert await allows(by, "user:{sub}", centrifugo(sub="42", channel="user:{sub}"))
    assert await allows(by, "a", centrifugo(channel="a", aud="somebody", iss="somebody")), "only if configured"
    assert await allows(by, "b", centrifugo(sub="42", channel="a"), centrifugo(sub="42", channel="b"))
    assert not await allows(by, "a", centrifugo(sub="42", channels=["a"])), "these are no permissions"
    with pytest.raises(Unauthorized, match="different subjects"):
        await allows(by, "a", centrifugo(sub="42", channel="a"), centrifugo(sub="43", channel="b"))
    wrong: list[object] = [7, "", ["a"], {}]
    for channel in wrong:
        with pytest.raises(Unauthorized):
            await allows(by, "a", centrifugo(channel=channel))
    assert await allows(by, "news", jwt.encode({"gateway": {"subscribe": ["news"]}, "channel": "x"}, SECRET))


async def test_when_a_subscription_ends() -> None:
    by = authority(jwt_secret=SECRET, jwt_leeway=0, centrifugo_tokens="subscription")

    async def ends(**claims: Any) -> float | None:
        return (await by.subscriber(Credentials((centrifugo(channel="a", **claims),)), ("a",), (), "")).expires_at

    later = 9_999_999_999
    assert await ends() is None
    assert await ends(exp=later) == later
    assert await ends(exp=later, expire_at=later - 5) == later - 5
    assert await ends(exp=later, expire_at=0) is None, "the subscription lasts forever, although the token expires"
    for claims in (
        {"exp": later, "expire_at": 1},
        {"exp": 1, "expire_at": 0},
        {"exp": 1},
        {"expire_at": "0"},
        {"expire_at": True},
        {"expire_at": 1.5},
    ):
        with pytest.raises(Unauthorized):
            await ends(**claims)


async def test_a_token_that_is_remembered_is_not_accepted_for_as_long_as_its_subscription_lasts() -> None:
    now = 2_000_000_000.0
    tokens = Tokens([secret_key(SECRET)], readers=[subscription_grant], now=lambda: now)
    token = centrifugo(channel="a", exp=now + 10, expire_at=0)
    assert (await tokens.grant(token)).expires_at is None
    now += 10
    with pytest.raises(Unauthorized, match="expired"):
        await tokens.grant(token)


async def test_centrifugos_connection_tokens_where_a_setting_says_so() -> None:
    by = authority(jwt_secret=SECRET, centrifugo_tokens="connection")
    assert await allows(by, "b", centrifugo(sub="42", channels=["a", "b"]))
    assert await allows(by, "b", centrifugo(sub="42", subs={"a": {}, "b": {"data": {}}}))
    assert not await allows(by, "c", centrifugo(sub="42", subs={"a": {}}, channels=["c"]))
    assert await allows(by, "a", centrifugo(sub="42", channel="a"))
    for claims in ({"channels": "a"}, {"channels": [7]}, {"subs": ["a"]}, {"subs": "a"}, {"channels": {"a": 1}}):
        with pytest.raises(Unauthorized):
            await allows(by, "a", centrifugo(**claims))


async def test_they_are_off_unless_asked_for() -> None:
    by = authority(jwt_secret=SECRET)
    for token in (centrifugo(channel="a"), centrifugo(channels=["a"])):
        assert not await allows(by, "a", token)
    with pytest.raises(Unauthorized):
        await allows(by, "chat:2021", CHAT)


def test_grants_together() -> None:
    first = grant_of({"subscribe": ["a", "x.*"], "admin": True}, "alice", 20.0, 5.0, where="")
    second = grant_of({"subscribe": ["b?"], "publish": ["c"]}, None, 10.0, 4.0, where="")
    both = together([first, second])
    assert [both.subscribe.has(name) for name in ("a", "x.y", "bc", "c")] == [True, True, True, False]
    assert both.subscribe.has_all_of("x.*")
    assert both.publish.has("c")
    assert (both.sub, both.admin, both.expires_at, both.issued_at) == ("alice", False, 10.0, 4.0)
    assert together([first]) is first
    assert together([first, Grant()]).expires_at == 20.0
    assert together([first, Grant()]).issued_at is None
