"""A child process with its output in a file, and ports of its own for it."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from testing.waiting import DEADLINE, wait_until


def free_port() -> int:
    """A TCP port that nobody listens on, and that nobody but the caller gets while this process lives.

    Tests run side by side and take servers down for a while, so a port that is merely free now may be somebody
    else's by the time it is needed. A socket that is bound but does not listen keeps the kernel from giving the port
    to others, also as the port of an outgoing connection. A server that asks for exactly this port still gets it:
    both sockets allow the address to be used again, as servers do anyway.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    keeper.bind(("127.0.0.1", 0))
    port = int(keeper.getsockname()[1])
    keeper.detach()
    return port


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens on that port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


class Process:
    """A program under test; a context manager that leaves nothing behind."""

    def __init__(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
            **(env or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                # A group of its own, so that `kill` reaches what the program itself has started.
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def wait(self, timeout: float = DEADLINE) -> int:
        """The exit status, once the process has ended."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to it and to its children, and wait until it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE)

    def stop(self, timeout: float = 30.0) -> int | None:
        """SIGTERM, and wait until it is gone; SIGKILL if it won't go."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.command[:4]} ignored SIGTERM for {timeout} s:\n{self.output}") from None

    def wait_for_output(self, text: str, timeout: float = DEADLINE) -> None:
        wait_until(lambda: text in self.output, f"{text!r} in the output of {self.command[:4]}", timeout)

    def __enter__(self) -> Self:
        return self if self.alive else self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
