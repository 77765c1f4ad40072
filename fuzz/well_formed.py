"""Requests that are right as HTTP, with generated values in them."""

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
from fuzz.contract import DURABLE_MARK, MAX_ID_BYTES, MAX_PAYLOAD_BYTES, Delivered, outcome
from fuzz.grammar import headers, position
from fuzz.payloads import payload
from fuzz.stage import Stage
from fuzz.target import Target
from testing.reference import Reference

_AT_A_TIME = 50
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEADER_CONTROL = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_ID = re.compile(r"2\.[0-9a-f]+\.[0-9a-f]+(\.[\w-]+:[0-9a-f]+)*(\.n[\w-]+)?", re.ASCII)
_PROBLEMS = (400, 403, 404, 405, 413)


class WellFormedRequests(Target):
    """Requests that are right as HTTP, with generated queries, JSON, ids, origins, addresses and bodies; a stream
    opens with the channels it asked for, a message is taken exactly if it can be delivered, all else is a problem
    document.
    """

    name = "well-formed requests"
    share = 36
    settings: ClassVar[Mapping[str, Any]] = {"max_payload_bytes": MAX_PAYLOAD_BYTES}

    def make(self, chance: Chance) -> Any:
        given = [(name, value.translate(None, _HEADER_CONTROL)) for name, value in headers(chance)]
        given = [
            (name, value) for name, value in given if name not in (b"Connection", b"Upgrade", b"Host", b"Expect")
        ]
        make = chance.one([_stream_by_query, _stream_by_query, _stream_by_json, _publish, _other])
        kind, line, content, channels = make(chance)
        head = [line + b" HTTP/1.1", b"Host: localhost", *(name + b": " + value for name, value in given)]
        if content or kind in ("json", "publish"):
            head.append(b"Content-Length: %d" % len(content))
        return [kind, b"\r\n".join(head) + b"\r\n\r\n", content, channels]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        gate = asyncio.Semaphore(_AT_A_TIME)

        async def play(case: Case) -> Failure | None:
            kind, head, content, channels = case.content
            async with gate:
                data = await exchange(stage.worker.port, Sending([head, content] if content else [head]))
            try:
                answers = read_answers(data)
            except Malformed as error:
                return Failure(case, f"{error} in {data[:500]!r}")
            if not answers or not answers[0].status:
                self.counts["no answer in time"] += 1
                return None
            self.counts[str(answers[0].status)] += 1
            what = _judged(kind, head, content, channels, answers[0])
            return Failure(case, f"{what}: {data[:600]!r}") if what else None

        return [failure for failure in await asyncio.gather(*map(play, cases)) if failure is not None]


def _judged(kind: str, head: bytes, content: bytes, channels: list[str], answer: Answer) -> str:
    """What is wrong with an answer; empty: nothing."""
    if answer.status in _PROBLEMS:
        if answer.headers.get("content-type") != "application/problem+json":
            if head.startswith(b"OPTIONS"):
                return ""  # of the CORS middleware, for no person to read
            return "an error that is no problem document"
        if answer.body and answer.whole and json.loads(answer.body)["status"] != answer.status:
            return "the problem says another status"
        if kind == "publish" and answer.status == 400 and not channels and b"?" not in head.partition(b" HTTP")[0]:
            taken = _is_deliverable(content, False) and not _has_two_origins(head)
            return "refused, although it can be delivered" if taken else ""
        return ""
    if answer.status not in (200, 204):
        return "a status that nobody knows"
    if answer.status == 204:
        return "" if head.startswith(b"OPTIONS") else "nothing"
    if kind == "publish" and answer.whole:
        said = json.loads(answer.body)
        durable = "id" in said
        if durable and not _ID.fullmatch(said["id"]):
            return "an id of another form"
        if _has_two_origins(head):
            return "taken from two origins"
        return "" if _is_deliverable(content, durable) else "taken, although it can't be delivered"
    if kind in ("query", "json") and not head.startswith(b"HEAD"):
        return _stream(channels, answer)
    return ""


def _stream(channels: list[str], answer: Answer) -> str:
    if not answer.is_stream:
        return "no stream"
    if answer.headers.get("content-encoding") == "gzip":
        return ""  # read in full by others
    if b"\nevent: gateway.open\n" not in answer.body:
        return "" if b"event: gateway.closing\n" in answer.body or not answer.whole else "it doesn't open"
    events = Reference(answer.body).events
    own = [event for event in events if event.type.startswith("gateway.")]
    *gaps, open_ = own
    if open_.type != "gateway.open" or not _ID.fullmatch(open_.id):
        return f"it opens with {open_}"
    said = json.loads(open_.data)
    if sorted(said["channels"] + said.get("patterns", [])) != sorted(set(channels)):
        return f"it opens with other channels than {channels}"
    if any(event.type != "gateway.gap" for event in gaps):
        return f"forged: {gaps}"
    if any(_CONTROL.search(name) or not name or len(name.encode()) > MAX_ID_BYTES for name in channels):
        return "such a channel can't be"
    return ""


def _has_two_origins(head: bytes) -> bool:
    return head.lower().count(b"\r\norigin:") > 1


def _is_deliverable(content: bytes, durable: bool) -> bool:
    told = outcome(content)
    return isinstance(told, Delivered) and not content.startswith(DURABLE_MARK) and not (durable and told.own_id)


def _name(chance: Chance) -> str:
    if chance.perhaps(0.9):
        return f"fuzz-{chance.randint(0, 9)}"
    return chance.one(
        ["", "gateway.x", "a\nb", "ž" * 128, "ž" * 129, "x" * 256, "x" * 257, "\u2028", "\0", chance.text(4)]
    )


def _stream_by_query(chance: Chance) -> tuple[str, bytes, bytes, list[str]]:
    names = chance.several(chance.one([1, 1, 3, 8]), lambda: _name(chance), 1)
    pairs = [("channel", name) for name in names]
    if chance.perhaps(0.15):
        pattern = chance.one(["fuzz-*", "*", "[a", "\\", "fuzz-[0-9]", "**a**b**", chance.text(3)])
        pairs.append(("pattern", pattern))
        names.append(pattern)
    extra = {
        "last_event_id": position(chance).decode("latin-1"), "lastEventId": "7", "history": str(chance.number()),
        "new": chance.one(names), "events": "channel", "strict": chance.one(["0", "1", "2"]), "_": chance.text(3),
        chance.text(2): chance.text(3), "token": chance.text(2),
    }  # fmt: skip
    pairs += [
        (name, value) for name, value in extra.items() if chance.perhaps(0.1) and name not in ("channel", "pattern")
    ]
    chance.shuffle(pairs)
    method = b"HEAD" if chance.perhaps(0.05) else b"GET"
    if len(names) == 1 and not pairs[1:] and chance.perhaps(0.3):
        return "query", method + b" /events/" + quote(names[0], safe="").encode(), b"", names
    return "query", method + b" /events?" + urlencode(pairs).encode(), b"", names


def _stream_by_json(chance: Chance) -> tuple[str, bytes, bytes, list[str]]:
    names = chance.several(chance.one([1, 1, 3, 8]), lambda: _name(chance), 1)
    value: dict[str, Any] = {"channels": names}
    extra = {
        "last_event_id": chance.one([position(chance).decode("latin-1"), 1, None]),
        "history": chance.one([chance.number(), "1", None, 1.5]),
        "new": chance.one([[chance.one(names)], [], "a", [1]]), "events": chance.one(["channel", "type", 1]),
        "signals": chance.json(), "strict": True,
    }  # fmt: skip
    value |= {name: given for name, given in extra.items() if chance.perhaps(0.1)}
    if chance.perhaps(0.05):
        value = chance.json()
    content = json.dumps(value, ensure_ascii=chance.perhaps(0.5)).encode(errors="surrogatepass")
    query = chance.weighted({"": 20, "?strict=1": 1, "?_=1": 1, "?channel=a": 1, "?" + quote(chance.text(4)): 1})
    if chance.perhaps(0.1):
        return "mutated", b"POST /events" + query.encode(), chance.mutated(content), []
    return "json", b"POST /events" + query.encode(), content, names


def _publish(chance: Chance) -> tuple[str, bytes, bytes, list[str]]:
    query = chance.weighted({"": 20, "?durable=1": 6, "?durable=0": 1, "?durable=2": 1, "?x=1": 1, "?token=a": 1})
    good = chance.perhaps(0.9)
    path = "/publish/fuzz.taken" if good else "/publish/" + quote(_name(chance), safe="")
    return "publish", f"POST {path}{query}".encode(), payload(chance), [] if good else ["?"]


def _other(chance: Chance) -> tuple[str, bytes, bytes, list[str]]:
    path = chance.one(
        ["/healthz", "/readyz", "/metrics", "/", "/events", "/publish/a", "/gateway.js", "/" + quote(chance.text(5))]
    )
    return "other", f"{chance.one(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'PATCH'])} {path}".encode(), b"", []
