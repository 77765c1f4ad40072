"""What the command line says of itself."""

import re
import subprocess
import sys

import pytest

from gateway.commands import main


def _gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["", *main.commands])
def test_every_command_has_help_to_learn_from(command: str) -> None:
    done = _gateway(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout
    assert len(done.stdout.splitlines()) > 8


def test_a_worker_does_not_hold_what_other_commands_use() -> None:
    script = (
        "import sys; from gateway.commands import main; main(['run', '--help'], standalone_mode=False); "
        "print('Modules:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    modules = done.stdout.partition("Modules: ")[2].split()
    assert "gateway.server.server" in modules
    packages = {module.partition(".")[0] for module in modules}
    assert not packages & {"fakeredis", "lupa", "rich", "pygments", "httpx", "httpcore", "httpx_sse", "jwt"}
    assert "cryptography.hazmat" not in modules, "redis-py looks whether the package is there, no more"
    commands = {f"gateway.commands.{name}" for name in ("dev", "listen", "publish")}
    assert not commands & set(modules)
    assert not [module for module in modules if module.startswith("gateway.bench")]


def test_a_misspelt_command_is_named_with_one_that_exists() -> None:
    done = _gateway("pubish")
    assert done.returncode == 2
    assert "No such command 'pubish'" in done.stderr
    assert "publish" in done.stderr.partition("pubish")[2]


def test_the_help_lists_every_command_with_what_it_does() -> None:
    shown = _gateway("--help").stdout
    for name, command in main.commands.items():
        assert command.help is not None
        assert re.search(rf"^  {name} +{command.help.split()[0]} ", shown, re.MULTILINE), name


def test_version() -> None:
    assert re.fullmatch(r"gateway, version \d+\.\d+\.\d+\n", _gateway("--version").stdout)
