"""A certificate for localhost that nobody trusts."""

import subprocess
from pathlib import Path


def make_certificate(directory: Path) -> Path:
    """Write fullchain.pem and privkey.pem, the names server-production.conf asks for; return `directory`."""
    directory.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", directory / "privkey.pem", "-out", directory / "fullchain.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return directory
