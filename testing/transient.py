"""The answer to a client that can't have its stream just now."""

import json
import re
from typing import NamedTuple

_BLOCK = re.compile(
    r"(?:id: (?P<id>[^\r\n]+)\n)?event: gateway\.closing\nretry: (?P<retry>\d+)\ndata: (?P<data>.+)\n\n"
)


class Transient(NamedTuple):
    """What it says.

    Attributes:
        reason: why.
        retry: the reconnection time, in ms.
        id: the id the client sent, repeated; None if there is none.
    """

    reason: str
    retry: int
    id: str | None


def transient(body: str) -> Transient:
    """The one block that such an answer consists of, as the contract has it.

    Raises:
        AssertionError: it is something else.
    """
    match = _BLOCK.fullmatch(body)
    assert match is not None, body
    data = json.loads(match["data"])
    assert list(data) == ["reason"], data
    return Transient(data["reason"], int(match["retry"]), match["id"])
