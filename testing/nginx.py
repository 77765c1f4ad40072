"""A real nginx from the project's own nginx.conf, on free ports and without touching the system's nginx."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from testing.certificate import make_certificate
from testing.process import Process, accepts, free_port
from testing.waiting import wait_until

REPOSITORY = Path(__file__).parents[1]

# Started by root, nginx would become `nobody`, who may not enter pytest's directories.
_USER = "user root;" if os.geteuid() == 0 else ""


class Nginx(Process):
    """nginx in front of the given local ports.

    The configuration is copied, and changed only where a test cannot take it as it is: addresses, the
    directories for logs and temporary files, and the included files that exist in two forms.

    Args:
        directory: where the copy, the logs and the temporary files go.
        upstreams: ports of the workers.
        production: with server-production.conf, and a certificate made for it.
        replacing: further changes of nginx.conf; each text must be in it exactly once.
    """

    def __init__(
        self,
        directory: Path,
        upstreams: Sequence[int],
        *,
        production: bool = False,
        replacing: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.tls_port = free_port() if production else 0
        self.url = f"https://localhost:{self.tls_port}" if production else f"http://127.0.0.1:{self.port}"
        self.access_log = directory / "access.log"
        self.error_log = directory / "error.log"
        self._write(upstreams, production, replacing or {})
        # -e: before nginx reads which error log is meant, it opens the system's.
        super().__init__(
            ["nginx", "-c", directory / "nginx.conf", "-e", self.error_log,
             "-g", f"daemon off; pid {directory}/nginx.pid; {_USER}"],
            directory / "nginx.out",
        )  # fmt: skip

    def check(self) -> str:
        """What `nginx -t` says of the configuration."""
        return subprocess.run([*self.command, "-t"], capture_output=True, text=True, check=False).stderr

    def _write(self, upstreams: Sequence[int], production: bool, replacing: Mapping[str, str]) -> None:
        parts = self.directory / "deploy" / "nginx"
        shutil.copytree(REPOSITORY / "deploy" / "nginx", parts)
        # Debian's nginx is older than `resolve` in an upstream and than `http2 on`.
        (parts / "listen-tls-1.22.conf").replace(parts / "listen-tls.conf")
        upstream = (parts / "upstream-fixed.conf").read_text()
        first, second = (f"server 127.0.0.1:{port} max_fails=0;" for port in (8081, 8082))
        servers = (first.replace("8081", str(port)) for port in upstreams)
        upstream = _replaced(_replaced(upstream, second, ""), first, "\n    ".join(servers))
        (parts / "upstream.conf").write_text(upstream)
        if production:
            make_certificate(self.directory / "tls")
            (parts / "server-production.conf").replace(parts / "server.conf")

        temporary = "".join(
            f"{kind}_temp_path {self.directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = _replaced((REPOSITORY / "nginx.conf").read_text(), "http {\n", f"http {{\n{temporary}")
        for old, new in replacing.items():
            main = _replaced(main, old, new)
        (self.directory / "nginx.conf").write_text(main)
        for path in (self.directory / "nginx.conf", *parts.iterdir()):
            text = path.read_text().replace("/var/log/nginx/", f"{self.directory}/")
            text = text.replace("listen 80 ", f"listen 127.0.0.1:{self.port} ")
            text = text.replace("listen 443 ", f"listen 127.0.0.1:{self.tls_port} ")
            path.write_text(text)

    def start(self) -> Self:
        super().start()
        wait_until(lambda: accepts(self.tls_port or self.port) or not self.alive, "nginx to listen")
        assert self.alive, self.output
        return self

    def kill(self) -> None:
        """SIGTERM, which is nginx's quick end: the children of a killed master would live on."""
        self.stop()

    @property
    def requests(self) -> list[str]:
        """The lines of the access log."""
        return self.access_log.read_text().splitlines() if self.access_log.exists() else []


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the nginx configuration, not once"
    return text.replace(old, new)
