"""Room for many clients that connect at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LENGTH = 16_384
"""What the servers that are measured ask for: a worker, Nchan and the limit alike."""

_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


def allowed() -> int:
    """The longest queue the kernel grants a server that starts now."""
    return int(_SOMAXCONN.read_text())


@contextmanager
def long_listen_queues() -> Iterator[str]:
    """Let the kernel grant queues of that length, where we may; gives a sentence that says so.

    A client that meets a full queue is not refused: its kernel tries again after a second. With queues that are
    too short for a storm one measures that second instead of the server.
    """
    before = allowed()
    if before >= LENGTH:
        yield f"net.core.somaxconn is {before:,}."
        return
    try:
        _SOMAXCONN.write_text(str(LENGTH))
    except OSError:
        yield (
            f"net.core.somaxconn is {before:,}, and only root may raise it: where more streams than that connect at "
            "once, some wait for a second."
        )
        return
    try:
        yield f"net.core.somaxconn was raised from {before:,} to {LENGTH:,} for this run, for all rows alike."
    finally:
        _SOMAXCONN.write_text(str(before))
