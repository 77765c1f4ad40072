"""How many files, and so connections, this process may open."""

import resource

_ENOUGH = 1_000_000
"""Where there is no limit; macOS has none and refuses to have it set to none."""

RESERVE = 64
"""Descriptors kept for Redis, listening sockets, logs and requests that are no streams."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; every stream is an open file.

    Returns:
        The limit now in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft not in (wanted, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def default_max_streams() -> int:
    """As many streams as there may be open files, less a reserve."""
    return max(_limit() - RESERVE, 1)


def default_max_connections() -> int:
    """Half of the open files: connections that send nothing can't take those of the streams."""
    return max(_limit() // 2, 1)


def _limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if limit == resource.RLIM_INFINITY else limit
