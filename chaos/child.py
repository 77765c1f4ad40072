"""A process of the harness' own: a fleet of clients, the publisher, the forwarder."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

_PATIENCE = 30.0


class Child:
    """Runs `python -m <module>`, sends it orders and takes its answers; a context manager.

    Args:
        module: the program.
        log: where its errors go.

    Attributes:
        status: the last `status` it sent.
    """

    def __init__(self, module: str, log: Path) -> None:
        self._module = module
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.status: dict[str, Any] = {}

    def send(self, do: str, **order: Any) -> None:
        assert self._process is not None, "not started"
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, timeout: float = _PATIENCE) -> dict[str, Any]:
        """Its next answer.

        Raises:
            AssertionError: none came; says what it wrote last.
        """
        with contextlib.suppress(queue.Empty):
            answer = self._answers.get(timeout=timeout)
            if answer:
                return answer
        raise AssertionError(f"{self._module} did not answer:\n{self._log.read_text()[-2000:]}")

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        self.send(do, **order)
        return self.receive()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd=Path(__file__).parents[1],
            )
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed under our hands by `__exit__`
            for line in self._process.stdout:
                answer = json.loads(line)
                if answer["kind"] == "status":
                    self.status = answer
                else:
                    self._answers.put(answer)
        self._answers.put({})
