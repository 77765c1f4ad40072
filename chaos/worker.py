"""A worker, and how to ask it over the socket it listens on."""

import re
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from testing.servers import Worker

_TIMEOUT = 5.0


class AnyWorker(Worker):
    """A worker on a TCP port, or on a unix socket.

    Args:
        path: of the unix socket; None: a free port.
    """

    def __init__(self, directory: Path, redis_url: str, path: Path | None = None, **settings: Any) -> None:
        if path is not None:
            settings["unix_socket"] = path
        super().__init__(directory, redis_url, **settings)
        self._path = path

    @property
    def upstream(self) -> str:
        """Its address in nginx's configuration."""
        return f"127.0.0.1:{self.port}" if self._path is None else f"unix:{self._path}"

    def get(self, target: str) -> tuple[int, str]:
        """Status and body.

        Raises:
            OSError: it isn't there.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
        try:
            if self._path is not None:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(_TIMEOUT)
                connection.sock.connect(str(self._path))
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except HTTPException as error:
            raise ConnectionError(f"no whole answer from {self.upstream}") from error
        finally:
            connection.close()

    def ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def metric(self, name: str) -> float:
        """A figure from /metrics; 0 if it isn't there."""
        found = re.search(f"^{re.escape(name)} ([\\d.e+]+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0
