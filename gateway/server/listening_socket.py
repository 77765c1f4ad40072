"""The sockets to listen on, and what is wrong where there can be none."""

import errno
import os
import socket
import stat

from gateway.settings import Settings, flag, variable

_MAX_PATH_BYTES = 107
"""Of a unix socket's path (unix(7); the 108th byte is its end)."""


class CannotListen(Exception):
    """One sentence that names the setting and what is wrong with it."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting} ({flag(setting)}, {variable(setting)}): {problem}.")


def tcp_sockets(settings: Settings) -> list[socket.socket]:
    """Sockets bound to the settings `host` and `port`, one for each address that the host has.

    Raises:
        CannotListen: in use, not permitted, or no address of this machine.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotListen("host", f"{host!r} is no address and no name of one ({_reason(error)})") from None
    opened: list[socket.socket] = []
    try:
        for family, type_, protocol, _, address in dict.fromkeys(found):
            opened.append(bound := socket.socket(family, type_, protocol))
            # A connection that a worker before this one has closed holds the port for a minute.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
    except OSError as error:
        for bound in opened:
            bound.close()
        raise why_not_tcp(error, settings) from None
    return opened


def why_not_tcp(error: OSError, settings: Settings) -> CannotListen:
    """What a failure to bind or listen means."""
    host, port = settings.host, settings.port
    if error.errno == errno.EADDRINUSE:
        return CannotListen("port", f"{port} on {host} is in use by another process")
    if error.errno in (errno.EACCES, errno.EPERM):
        return CannotListen("port", f"this process is not permitted to listen on {port}")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return CannotListen("host", f"this machine has no address {host}")
    return CannotListen("host", f"can't listen on {host}, port {port}: {_reason(error)}")


def check_unix_path(settings: Settings) -> None:
    """That the setting `unix_socket` can be listened on. The file of a worker that is gone is no obstacle.

    Raises:
        CannotListen: it can't be.
    """
    path = settings.unix_socket
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise CannotListen(
            "unix_socket", f"a path of {len(os.fsencode(path))} bytes is too long; {_MAX_PATH_BYTES} is the limit"
        )
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise CannotListen("unix_socket", f"there is no directory {directory}")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise why_not_unix(error, settings) from None
    if mode is not None and not stat.S_ISSOCK(mode):
        raise CannotListen("unix_socket", f"{path} is there already, and is no socket")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise CannotListen("unix_socket", f"this process is not permitted to make files in {directory}")
    if mode is not None and _somebody_listens(path):
        raise CannotListen("unix_socket", f"another process listens on {path}")


def why_not_unix(error: OSError, settings: Settings) -> CannotListen:
    """What a failure to bind or listen means."""
    return CannotListen("unix_socket", f"can't listen on {settings.unix_socket}: {_reason(error)}")


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # where many wait to be accepted, one more would wait
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
