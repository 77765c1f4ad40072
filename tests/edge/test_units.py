"""The units of systemd and the upstream for their sockets."""

import shutil
import subprocess
from pathlib import Path

import pytest

from testing.nginx import REPOSITORY


def test_the_units_are_valid(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    source = REPOSITORY / "deploy" / "systemd"
    unit = (source / "gateway@.service").read_text()
    assert unit.count("/opt/gateway/bin/gateway") == 1
    # The one thing that isn't here is the program.
    (tmp_path / "gateway@.service").write_text(unit.replace("/opt/gateway/bin/gateway", "/bin/true"))
    shutil.copy(source / "gateway.target", tmp_path)
    names = ["gateway@1.service", "gateway.target"]
    (tmp_path / names[0]).symlink_to("gateway@.service")
    done = subprocess.run(
        ["systemd-analyze", "verify", *[tmp_path / name for name in names]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "gateway" not in done.stderr, done.stderr


def test_the_unix_socket_upstream_is_valid_nginx(tmp_path: Path) -> None:
    servers = REPOSITORY / "deploy" / "systemd" / "upstream-unix.conf"
    (tmp_path / "nginx.conf").write_text(f"events {{}}\nhttp {{\ninclude {servers};\n}}\n")
    done = subprocess.run(
        ["nginx", "-t", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log",
         "-g", f"pid {tmp_path}/nginx.pid;"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
