"""Requests with generated tokens, against what the documentation says that each is worth."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from fuzz.answers import Answer, Malformed, read_answers
from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.connection import Sending, exchange
from fuzz.stage import Stage
from fuzz.target import Target
from fuzz.token_contract import PUBLIC, Worth, allows, allows_pattern, worth
from fuzz.token_grammar import TRAPS, token, wish
from fuzz.token_keys import SETTINGS
from testing.reference import Reference

_AT_A_TIME = 50
_QUIET = 5.0
_VISIBLE = re.compile(r"[!-~]+")
_COOKIE = re.compile(r"[A-Za-z0-9._=-]+")
_NOBODY = "nobody"
"""A subject that no token has."""


class Tokens(Target):
    """Requests with tokens in headers, cookies, queries and bodies: odd headers, claims, times, globs, subjects and
    signatures, damaged base64 and JSON; each must be rejected or allow exactly what the documentation says, and where
    that doesn't speak of it, no more than the claims say.
    """

    name = "tokens"
    share = 50
    settings: ClassVar[Mapping[str, Any]] = {
        **SETTINGS,
        "public_channels": f"{PUBLIC}*,fuzz-alive",
        "query_tokens": True,
        "jwt_leeway": 0,
    }

    def make(self, chance: Chance) -> Any:
        trap = chance.one(TRAPS) if chance.perhaps(0.1) else None
        asked = wish(chance, trap)
        way = chance.one(["header", "header", "cookie", "query", "body"])
        tokens = [token(chance, trap)]
        if asked.action != "subscribe" and way == "body":
            way = "header"
        if way in ("query", "body") and chance.perhaps(0.2):
            tokens += chance.several(2, lambda: token(chance, None), 1)
        tokens = [each.encode(errors="replace").decode() or "." for each in tokens]
        return [way, tokens, *asked]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        gate = asyncio.Semaphore(_AT_A_TIME)

        async def play(case: Case) -> Failure | None:
            async with gate:
                data = await exchange(stage.worker.port, Sending([_request(*case.content)], quiet=_QUIET))
            try:
                answers = read_answers(data)
            except Malformed as error:
                return Failure(case, f"{error} in {data[:500]!r}")
            if not answers or not answers[0].status:
                return Failure(case, "no answer")
            self.counts[str(answers[0].status)] += 1
            what = _judged(case.content, answers[0])
            return Failure(case, f"{what}: {case.content} got {data[:600]!r}") if what else None

        return [failure for failure in await asyncio.gather(*map(play, cases)) if failure is not None]


def _request(way: str, tokens: Sequence[str], action: str, channels: Sequence[str], patterns: Sequence[str]) -> bytes:
    pairs: list[tuple[str, str]] = []
    lines = ["Host: localhost"]
    body = b""
    if way == "header" and _VISIBLE.fullmatch(tokens[0]):
        lines.append(f"Authorization: Bearer {tokens[0]}")
    elif way == "cookie" and _COOKIE.fullmatch(tokens[0]):
        lines.append(f"Cookie: a=b; gateway_token={tokens[0]}")
    elif way == "body" and action == "subscribe":
        # There it may be any text.
        body = json.dumps({"channels": channels, "patterns": patterns, "tokens": tokens}).encode()
    else:
        pairs = [("token", each) for each in tokens]
    if action == "publish":
        line, body = f"POST /publish/{quote(channels[0], safe='')}?{urlencode(pairs)}", b"x"
    elif action == "admin":
        line, body = f"POST /revoke?{urlencode(pairs)}", json.dumps({"sub": _NOBODY}).encode()
    elif body:
        line = "POST /events"
    else:
        pairs += [("channel", name) for name in channels] + [("pattern", name) for name in patterns]
        line = f"GET /events?{urlencode(pairs)}"
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{line} HTTP/1.1", *lines, "", ""]).encode() + body


def _judged(content: Any, answer: Answer) -> str:
    """What is wrong with an answer; empty: nothing."""
    _, tokens, action, channels, patterns = content
    if what := _malformed(answer):
        return what
    if answer.status == 400 and any(name.startswith("gateway.") for name in [*channels, *patterns]):
        return ""  # whatever the token
    worths = [worth(each) for each in tokens]
    accepted = [each for each in worths if each is not None]
    subjects = {each.sub for each in accepted}
    if len(accepted) < len(worths) or len(subjects - {None}) > 1:
        return "" if answer.status == 401 else "a token that is not valid is accepted"
    is_certain = all(each.certain for each in accepted) and len(subjects) == 1
    if answer.status == 401:
        return "a token that is valid is rejected" if is_certain else ""
    is_allowed = _is_allowed(accepted, action, channels, patterns)
    if answer.status == 403:
        return "what a token allows is refused" if is_allowed else ""
    if answer.status != 200:
        return "another status"
    if not is_allowed:
        return "more is allowed than the tokens say"
    return _stream(channels, patterns, answer) if action == "subscribe" else ""


def _malformed(answer: Answer) -> str:
    if answer.status < 400:
        return ""
    if answer.headers.get("content-type") != "application/problem+json":
        return "an error that is no problem document"
    if json.loads(answer.body)["status"] != answer.status:
        return "the problem says another status"
    if (answer.status == 401) != ("www-authenticate" in answer.headers):
        return "401 goes with WWW-Authenticate"
    return ""


def _is_allowed(worths: Sequence[Worth], action: str, channels: Sequence[str], patterns: Sequence[str]) -> bool:
    if action == "admin":
        return all(each.admin for each in worths)
    if action == "publish":
        return allows(worths, action, channels[0])
    return all(name.startswith(PUBLIC) or allows(worths, action, name) for name in channels) and all(
        pattern.startswith(PUBLIC) or allows_pattern(worths, pattern) for pattern in patterns
    )


def _stream(channels: Sequence[str], patterns: Sequence[str], answer: Answer) -> str:
    if not answer.is_stream:
        return "no stream"
    opening = [event for event in Reference(answer.body).events if event.type == "gateway.open"]
    if len(opening) != 1:
        return "it doesn't open"
    said = json.loads(opening[0].data)
    is_same = set(said["channels"]) == set(channels) and set(said.get("patterns", [])) == set(patterns)
    return "" if is_same else "it opens with something else"
