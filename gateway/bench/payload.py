"""The published message: it carries what the reader needs to check it."""

import random
import re
from collections.abc import Iterator

SMALLEST = 64
"""Bytes: room for the two numbers, however large they grow."""

SMALLEST_VARIED = 100
"""The same for a varied one."""

# The whole payload must match, to its last brace: an event cut short is no delivery.
_PATTERN = re.compile(rb'\{"n":(\d+),"t":(\d+),(?:"pad":"x*"|(?P<varied>"quotes":\[[^]\n]*\],"trace":"[0-9a-f]*"))\}')


def encode(number: int, stamp: int, size: int) -> bytes:
    """A JSON object of exactly `size` bytes.

    Args:
        number: its place in its channel, from 0.
        stamp: nanoseconds of the monotonic clock, which all processes of a machine share.
        size: bytes.
    """
    head = b'{"n":%d,"t":%d,"pad":"' % (number, stamp)
    return head + b"x" * (size - len(head) - 2) + b'"}'


def encode_varied(number: int, stamp: int, size: int) -> bytes:
    """The same with quotes of securities instead of padding, for padding would compress to nothing."""
    head = b'{"n":%d,"t":%d,' % (number, stamp)
    return head + _quotes(number, size - len(head) - 1) + b"}"


def found(text: bytes) -> Iterator[tuple[int, int, int]]:
    """The whole payloads in a text: number, stamp, and where it ends."""
    for match in _PATTERN.finditer(text):
        number = int(match[1])
        varied = match["varied"]
        # One wrong digit is no delivery either; the other kind has no room for one.
        if varied is None or varied == _quotes(number, len(varied)):
            yield number, int(match[2]), match.end()


def _quotes(number: int, size: int) -> bytes:
    """Fields whose names repeat and whose values don't, other ones for each number."""
    values = random.Random(number)
    rows: list[bytes] = []
    left = size - len(b'"quotes":[],"trace":""')
    while True:
        price = values.randrange(500, 50_000)
        row = b'{"isin":"DE%010d","bid":%.2f,"ask":%.2f,"volume":%d,"time":"%02d:%02d:%02d.%03d"}' % (
            values.randrange(10**10),
            price / 100,
            (price + values.randrange(1, 20)) / 100,
            values.randrange(1, 500) * 10,
            values.randrange(9, 18),
            values.randrange(60),
            values.randrange(60),
            values.randrange(1000),
        )
        if len(row) + bool(rows) > left:
            break
        left -= len(row) + bool(rows)
        rows.append(row)
    # Random digits fill it up: they compress worse than anything else an application would send here.
    trace = b"%0*x" % (left, values.getrandbits(4 * left)) if left else b""
    return b'"quotes":[%s],"trace":"%s"' % (b",".join(rows), trace)
