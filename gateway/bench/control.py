"""The child's end of the talk with the command: a line of JSON each way."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any


class Control:
    """Standard input and output as messages.

    Reads the descriptor itself: a buffered file might hold a line that epoll then doesn't know of.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self.closed = False

    def fileno(self) -> int:
        return sys.stdin.fileno()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Wait for bytes, then give the messages that are complete; `closed` when the command is gone."""
        data = os.read(self.fileno(), 65_536)
        self.closed = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def wait(self) -> dict[str, Any]:
        """The next message, when no other is expected with it."""
        while not self.closed:
            for message in self.messages():
                return message
        sys.exit(0)  # nobody is left to report to

    def send(self, **message: Any) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
