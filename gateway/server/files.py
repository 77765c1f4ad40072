"""How many files, and so connections, this process may open."""

import resource

RESERVE = 64
"""Descriptors kept for Redis, listening sockets, logs and requests that are no streams."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; every stream is an open file.

    Returns:
        The limit now in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def default_max_streams() -> int:
    """As many streams as there may be open files, less a reserve."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limit - RESERVE, 1)
