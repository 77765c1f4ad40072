"""The published message: it carries what the reader needs to check it."""

import re

SMALLEST = 64
"""Bytes: room for the two numbers, however large they grow."""

# The whole payload must match, to its last brace: an event cut short is no delivery.
PATTERN = re.compile(rb'\{"n":(\d+),"t":(\d+),"pad":"x*"\}')


def encode(number: int, stamp: int, size: int) -> bytes:
    """A JSON object of exactly `size` bytes.

    Args:
        number: its place in its channel, from 0.
        stamp: nanoseconds of the monotonic clock, which all processes of a machine share.
        size: bytes.
    """
    head = b'{"n":%d,"t":%d,"pad":"' % (number, stamp)
    return head + b"x" * (size - len(head) - 2) + b'"}'
