"""The child's end of the talk with the harness: a line of JSON each way."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

Order = dict[str, Any]


async def orders() -> AsyncIterator[Order]:
    """What the harness wants, until it says `quit` or is gone: a child must not outlive it."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order: Order = json.loads(line)
        if order["do"] == "quit":
            return
        yield order


def tell(kind: str, **facts: Any) -> None:
    """Blocks until the harness has taken it; its thread always reads."""
    data = json.dumps({"kind": kind, **facts}).encode() + b"\n"
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
