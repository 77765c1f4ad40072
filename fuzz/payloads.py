"""What a publisher may publish: text, envelopes, and what is nearly one."""

import json

from fuzz.chance import Chance

_FIELDS = ["event", "data", "id", "retry", "comment", "key", "tags", "", "Event"]
_LINES = [
    b"data: forged", b"event: gateway.open", b"id: 2.1.1", b"retry: 1", b":comment", b"", b" ", b"data",
    b"\xef\xbb\xbf",
]  # fmt: skip


def payload(chance: Chance) -> bytes:
    """One message."""
    kind = chance.weighted({"text": 25, "envelope": 40, "json": 10, "stream": 15, "mark": 7, "large": 0.2, "deep": 1})
    match kind:
        case "text":
            data = chance.text(30).encode() if chance.perhaps(0.7) else chance.garbage(30)
        case "envelope":
            data = _envelope(chance)
        case "json":
            data = json.dumps(chance.json(), ensure_ascii=chance.perhaps(0.5)).encode(errors="surrogatepass")
        case "stream":
            ends = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", "\u2028".encode(), b"\x0b", b"\0", b"\x85"]
            data = b"".join(chance.one(_LINES) + chance.one(ends) for _ in range(chance.randint(1, 8)))
        case "mark":
            data = _marked(chance)
        case "large":
            data = b"x" * chance.one([65_535, 65_536, 1_048_576, 1_048_577])
        case _:
            depth = chance.one([100, 250, 400, 5000])  # the standard library reads up to a thousand, more or less
            data = b'{"event":"e","data":' + b"[" * depth + b"]" * depth + b"}"
    return chance.mutated(data) if len(data) < 10_000 and chance.perhaps(0.25) else data


def _envelope(chance: Chance) -> bytes:
    fields: dict[str, object] = {
        "event": _name(chance),
        "data": chance.text(8) if chance.perhaps(0.5) else chance.json(),
    }
    if chance.perhaps(0.3):
        fields["id"] = chance.one([_name(chance), "17", "2.0.0", "x~2.1.1.abcdefgh:1", "", "ž", "a b", "i" * 257])
    if chance.perhaps(0.2):
        fields["retry"] = chance.one([chance.number(), 3000, 86_400_000, 86_400_001, True, "1", 1.5, None])
    if chance.perhaps(0.2):
        fields["comment"] = chance.one([chance.text(6), "a\nb\r\nc\rd", 1, None, ""])
    if chance.perhaps(0.06):
        fields[chance.one(_FIELDS)] = chance.json(1)
    if chance.perhaps(0.06):
        del fields[chance.one(list(fields))]
    text = json.dumps(fields, ensure_ascii=chance.perhaps(0.5), indent=chance.one([None, None, 1]))
    if chance.perhaps(0.05):  # numbers that a float can't hold
        number = chance.one(
            ["1e400", "-0", "0.1234567890123456789", "123456789012345678901234567890", "1E5", "1e-400"]
        )
        text = text.replace(
            '"data": ', f'"data": {number}, "x": ' if chance.perhaps(0.2) else f'"data": [{number}], "data": '
        )
    return chance.one([b"", b"", b"", b" ", b"\r\n", b"\xef\xbb\xbf", b"\t"]) + text.encode(errors="surrogatepass")


def _name(chance: Chance) -> str:
    return chance.one(
        [
            "update", "a", "", "ž", "gateway.open", "gateway.", "Gateway.x", " gateway.x", "a\nb", "a\r", "a\0",
            "a: b",
            "message", "\ufeff", "e" * 256, "e" * 257, "ž" * 129, "\u2028", chance.text(3),
        ]
    )  # fmt: skip


def _marked(chance: Chance) -> bytes:
    """Like what Redis puts before a durable message."""
    number = chance.one(
        [b"10000000000000-0000000001", b"10000000000000-1", b"1-1", b"9" * 16 + b"-1", b"9" * 17 + b"-1"]
    )
    signature = chance.one([b"", b" ", b" " + b"0" * 20, b" " + b"0" * 19, b" " + b"Z" * 20, b"  " + b"0" * 20])
    body = chance.one([b"hello", b"", b'{"event":"e","data":"d"}', b"\x1egateway:1-1\nx", b"\xff", chance.garbage(5)])
    return b"\x1egateway:" + number + signature + chance.one([b"\n", b"\n", b"\r\n", b"", b"\n\n"]) + body
