"""Tokens, by the grammar of JSON Web Tokens, with something wrong here and there."""

import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from fuzz.chance import Chance
from fuzz.token_keys import ALGORITHMS, PEM, SECRET, sign

_LATER, _BEFORE = 4_000_000_000, 1_000_000_000
_SUBJECTS = [
    "alice", "bob", "1.admin", "a:b", "a/b", "*", "a*", "[a]", "\\", "a\\", "^", "?", "", "ž", "{sub}", "a\n",
    "x" * 300, "news", "gateway", "\ud800", "\0",
]  # fmt: skip
_USUAL_GLOBS = ["news", "news.*", "*", "user.{sub}", "n*"]
_GLOBS = [
    "news", "news.*", "news.a", "*", "**", "n*s", "news?a", "user.{sub}", "user:{sub}", "user.{sub}.*", "{sub}",
    "{sub}*", "*{sub}*", "{{sub}}", "{sub}{sub}", "user.[{sub}]", "us?r.{sub}", "\\*", "user.\\{sub}", "news.\\*",
    "[^a]", "[a-c]", "[c-a]", "[", "a[", "[]", "[a", "[\\]]", "\\", "a\\", "gateway.*", "gateway.x", "ž.*", "", "a",
    "b*", "*a*b*", "\ud800*x", "open.*", "{SUB}", "{sub", "user.*", "n[e]ws", "news\n*", "\0*",
]  # fmt: skip
_USUAL_CHANNELS = ["news", "news.a", "user.alice"]
_CHANNELS = [
    "news", "news.a", "news.a.b", "user.alice", "user.bob", "user:a:b", "user.1.admin", "user.alice.x", "open.x",
    "a", "b", "ab", "user.*", "user.{sub}", "user.", "ž.1", "gateway.x", "alice", "*", "n", "]", "\\", "^", "user.",
    "news*",
]  # fmt: skip
_PATTERNS = [
    "news.*",
    "news.a*",
    "*",
    "user.*",
    "[a-c]",
    "n*s",
    "open.*",
    "open.a*",
    "news?a",
    "\\*",
    "b*",
    "gateway.*",
]


class Trap(NamedTuple):
    """A subject and a glob that together mean more than they should, where they are only put together."""

    sub: str
    glob: str
    channel: str


TRAPS = [
    Trap("1.admin", "user.{sub}", "user.1.admin"),
    Trap("a:b", "user:{sub}", "user:a:b"),
    Trap("a/b", "user/{sub}/x", "user/a/b/x"),
    Trap("a:b", "user.{sub}", "user.a:b"),
    Trap("{sub}", "user.{sub}", "user.{sub}"),
    Trap("alice", "user.[{sub}]", "user.c"),
    Trap("^", "[{sub}a]", "b"),
    Trap("[a-c]", "{sub}", "b"),
    Trap("*", "user.{sub}", "user.bob"),
    Trap("*", "{sub}", "news"),
    Trap("a*", "{sub}", "ab"),
    Trap("?", "user.{sub}", "user.x"),
    Trap("", "user.{sub}", "user."),
    Trap("", "{sub}*", "news"),
    Trap("\\", "{sub}*", "*"),
    Trap("a", "\\{sub}*", "ab"),
]


class Wish(NamedTuple):
    """What is asked for with tokens.

    Attributes:
        action: `subscribe`, `publish` or `admin`.
        channels, patterns: on which.
    """

    action: str
    channels: list[str]
    patterns: list[str]


def token(chance: Chance, trap: Trap | None) -> str:
    """One that is mostly good, or nearly."""
    claims = _members(chance, {"sub": _subject, "exp": _expiry, "gateway": _claim})
    if trap is not None:
        claims += [("sub", trap.sub), ("gateway", {"subscribe": [trap.glob], "publish": [trap.glob]})]
        claims = list(dict(claims).items())
    if chance.perhaps(0.15):
        name, make = chance.one(list(_MORE_CLAIMS.items()))
        claims.append((name, make(chance)))
    algorithm = chance.one(["HS256", "HS256", *ALGORITHMS])
    header = [("alg", algorithm), ("typ", "JWT")]
    if chance.perhaps(0.15):
        name, make = chance.one(list(_MORE_HEADER.items()))
        header = [each for each in header if each[0] != name or chance.perhaps(0.3)] + [(name, make(chance))]
    parts = [_written(chance, header), _written(chance, claims)]
    segments = [_segment(chance, part) for part in parts]
    text = ".".join(segments)
    signature = sign(algorithm, text.encode(errors="surrogatepass"))
    whole = f"{text}.{_segment(chance, _signature(chance, algorithm, text, signature))}"
    if chance.perhaps(0.04):
        return chance.mutated(whole.encode(errors="surrogatepass")).decode("latin-1")
    if chance.perhaps(0.03):
        return chance.one(
            [whole + ".", "." + whole, whole + ".x", text, text + ".", "..", "", "a.b.c", chance.text(6), whole * 2]
        )
    return whole


def wish(chance: Chance, trap: Trap | None) -> Wish:
    """What is asked for: mostly one channel."""
    if trap is not None:
        return Wish(chance.one(["subscribe", "publish"]), [trap.channel], [])
    action = chance.weighted({"subscribe": 7, "publish": 2, "admin": 0.5})
    if action != "subscribe":
        return Wish(action, [_channel(chance)], [])
    patterns = [chance.one(_PATTERNS)] if chance.perhaps(0.15) else []
    return Wish(
        action, chance.several(chance.one([1, 1, 1, 3]), lambda: _channel(chance), 0 if patterns else 1), patterns
    )


def _channel(chance: Chance) -> str:
    return chance.one(chance.one([_USUAL_CHANNELS, _CHANNELS]))


def _members(chance: Chance, usual: dict[str, Callable[[Chance], Any]]) -> list[tuple[str, Any]]:
    """Mostly all of them, in any order, and one may stand twice."""
    found = [(name, make(chance)) for name, make in usual.items() if chance.perhaps(0.95)]
    if found and chance.perhaps(0.04):
        name = chance.one(found)[0]
        found.append((name, usual[name](chance)))
    chance.shuffle(found)
    return found


def _subject(chance: Chance) -> Any:
    if chance.perhaps(0.6):
        return chance.one(["alice", "alice", "a:b"])
    return chance.one(_SUBJECTS) if chance.perhaps(0.9) else chance.json(2)


def _expiry(chance: Chance) -> Any:
    return _LATER if chance.perhaps(0.9) else _time(chance)


def _time(chance: Chance) -> Any:
    return chance.one(
        [
            _LATER, _LATER + 0.5, _BEFORE, _BEFORE + 0.25, 0, -1, 1e300, -1e300, 10**30, 10**400, -(10**400),
            1 << 53, str(_LATER), str(_BEFORE), "", None, True, False, [_LATER], {"at": _LATER}, float("nan"),
            float("inf"), -float("inf"), 253_402_300_800, 1e11, chance.number(), chance.json(1),
        ]
    )  # fmt: skip


def _claim(chance: Chance) -> Any:
    if chance.perhaps(0.04):
        return chance.json(2)
    kinds = ["subscribe", "publish", "presence"]
    claim: dict[str, Any] = {kind: _globs(chance) for kind in kinds if chance.perhaps(0.9)}
    if chance.perhaps(0.15):
        claim["admin"] = chance.one([True, True, False, 1, "true", None, [], chance.json(1)])
    if chance.perhaps(0.1):
        claim[chance.text(2)] = chance.json(2)
    return claim


def _globs(chance: Chance) -> Any:
    if chance.perhaps(0.04):
        return chance.one(
            ["*", "news", {"news": True}, None, 1, True, [["news"]], ["news", 1], [None], chance.json(2)]
        )
    if chance.perhaps(0.005):
        return ["news"] * chance.one([999, 1000, 1001, 1100])
    kinds = chance.one([_USUAL_GLOBS, _GLOBS])
    return chance.several(3, lambda: chance.one(kinds) if chance.perhaps(0.97) else chance.text(3))


_MORE_CLAIMS: dict[str, Callable[[Chance], Any]] = {
    "nbf": _time,
    "iat": _time,
    "aud": lambda chance: chance.one(["gateway", ["a"], [], "", None, 1, {"a": 1}]),
    "iss": lambda chance: chance.one(["https://id.example", "", 1, None, ["a"]]),
    "jti": lambda chance: chance.one(["7", 7, None]),
    "admin": lambda _: True,
    "subscribe": lambda _: ["*"],
    "Gateway": lambda _: {"subscribe": ["*"], "publish": ["*"], "admin": True},
    "gateway\0": lambda _: {"subscribe": ["*"]},
    "mercure": lambda _: {"subscribe": ["*"], "publish": ["*"]},
    "channel": lambda _: "news",
    "channels": lambda _: ["news"],
    "deep": lambda chance: _nested(chance.one([2, 40, 400, 900])),
    "number": lambda chance: chance.one([10**300, 10**4299, 1e308, float("nan"), -0.0]),
}  # fmt: skip
_MORE_HEADER: dict[str, Callable[[Chance], Any]] = {
    "alg": lambda chance: chance.one(
        [
            "none", "None", "NONE", "", "hs256", "HS256", "HS1", "RS256", "PS256", "ES384", "ES256", "ES256K",
            "EdDSA", "Ed25519", "dir", "HS256\0", " HS256", None, 1, ["HS256"], {"HS256": 1}, True, "\ud800",
        ]
    ),
    "kid": lambda chance: chance.one(
        ["a", "", "../../dev/null", "x" * 500, "' OR 1=1 --", "\ud800", "ž", 1, None, [], {"a": 1}, True, 1.5]
    ),
    "crit": lambda chance: chance.one([["exp"], ["b64"], [], "b64", None, 1, ["b64", "exp"], [1], [""], {"b64": 1}]),
    "b64": lambda chance: chance.one([False, True, "false", 0, None]),
    "jwk": lambda _: {"kty": "oct", "k": "YQ"},
    "jku": lambda _: "http://127.0.0.1:1/keys",
    "x5u": lambda _: "http://127.0.0.1:1/keys",
    "x5c": lambda _: ["MIIB"],
    "typ": lambda chance: chance.one(["at+jwt", 1, None, "JWT\0", [], "JWE"]),
    "cty": lambda chance: chance.one(["JWT", 1]),
    "zip": lambda _: "DEF",
    "enc": lambda _: "A256GCM",
    "deep": lambda chance: _nested(chance.one([2, 400, 900])),
}  # fmt: skip


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _written(chance: Chance, members: list[tuple[str, Any]]) -> bytes:
    """An object as JSON, or nearly."""
    indent = chance.one([None, None, None, 0])
    each = [f"{json.dumps(name)}:{json.dumps(value, indent=indent)}" for name, value in members]
    text = "{" + ",".join(each) + "}"
    if chance.perhaps(0.98):
        return text.encode()
    return chance.one(
        [
            b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("utf-32-be"), text.encode() + b"\0",
            b" \r\n" + text.encode() + b"\t", b"[" + text.encode() + b"]", b"", b"null", b"1", b'"a"', b"{",
            b"[" * 9000, text.encode()[:-1], text.encode() * 2, text.replace('"', "'").encode(),
            b"{" + b"1" * 5000 + b"}", chance.mutated(text.encode()),
            b'{"n":' + b"1" * 5000 + b"," + text.encode()[1:], b"\xff" + text.encode(),
            text.replace("\\u", "\\U").encode(), b'{"\\ud800":1,' + text.encode()[1:],
        ]
    )  # fmt: skip


def _segment(chance: Chance, content: bytes) -> str:
    """Base64url, or nearly."""
    text = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
    if chance.perhaps(0.985):
        return text
    at = chance.randint(0, len(text))
    return chance.one(
        [
            text + "=" * (-len(text) % 4), text + "=", text + "==", text + "====", "=" + text, text[:-1], text + "A",
            *(text[:at] + sign + text[at:] for sign in ("+", "/", "!", " ", "\n", ".", "%", "\0", "ž", "\ud800")),
            base64.b64encode(content).decode(), _with_other_end(text), content.decode("latin-1"), "",
        ]
    )  # fmt: skip


def _with_other_end(text: str) -> str:
    """The same bytes, with one bit more at the end where there is room for it."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) ^ 1] if text else text


def _signature(chance: Chance, algorithm: str, text: str, good: bytes) -> bytes:
    if chance.perhaps(0.95):
        return good
    content = text.encode(errors="surrogatepass")
    return chance.one(
        [
            b"", good[:-1], good + b"\0", bytes(len(good)), b"\xff" * len(good), chance.randbytes(len(good)),
            good * 2, sign("HS256", content, PEM), sign("HS256", content, ""), sign("HS256", content, SECRET[::-1]),
            content, sign(chance.one(ALGORITHMS), content), sign(algorithm, content + b" "), chance.mutated(good, 1),
        ]
    )  # fmt: skip
