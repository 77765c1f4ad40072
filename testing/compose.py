"""A project of docker compose, from the repository's own files, that leaves nothing behind."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self
from uuid import uuid4

from testing.nginx import REPOSITORY


def docker(*words: str, check: bool = True) -> str:
    """What a docker command prints; a failure shows all of it."""
    return _run(["docker", *words], os.environ, check)


def docker_is_missing() -> str:
    """Why no container can be started here, in one line; empty if one can."""
    try:
        docker("info")
    except (OSError, AssertionError) as error:
        return f"there is no docker engine to start containers with: {str(error).strip().splitlines()[0]}"
    return ""


class Compose:
    """A context manager; the name of the project is unique, so that nobody's own containers are touched."""

    def __init__(self, env: Mapping[str, str], files: Sequence[str] = ("docker-compose.yml",)) -> None:
        self.project = f"gateway-test-{uuid4().hex[:8]}"
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
            **env,
        }
        self._files = [word for file in files for word in ("--file", file)]

    def __call__(self, *words: str) -> str:
        """`docker compose …`, and what it prints."""
        command = ["docker", "compose", "--project-name", self.project, *self._files, *words]
        return _run(command, self._env, check=True)

    def containers(self, service: str) -> list[str]:
        """The ids of its running containers, oldest first."""
        return docker("ps", "--quiet", *self._mine, "--filter", f"label=com.docker.compose.service={service}",
                      "--no-trunc").split()[::-1]  # fmt: skip

    def leftovers(self) -> str:
        """Whatever the engine still has of this project."""
        return "".join(
            docker(*words, "--quiet", *self._mine)
            for words in (("ps", "--all"), ("network", "ls"), ("volume", "ls"), ("image", "ls"))
        )

    @property
    def _mine(self) -> tuple[str, str]:
        return "--filter", f"label=com.docker.compose.project={self.project}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self("down", "--volumes", "--rmi", "local", "--remove-orphans")


def _run(command: Sequence[str], env: Mapping[str, str], check: bool) -> str:
    result = subprocess.run(
        command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert not check or result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result.stdout
