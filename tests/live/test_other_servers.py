"""On servers other than our own, and inside other applications."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from testing.servers import RedisServer, Worker
from testing.stacks import Form, start_worker, uvicorn_command
from testing.stream import open_stream
from testing.waiting import wait_until


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn-alone", "granian"])
def test_streams_end_cleanly_when_the_server_does(tmp_path: Path, redis_server: RedisServer, server: str) -> None:
    with start_worker(Form("portable", server), tmp_path, redis_server.url, ping_interval=0.2) as worker:
        worker.wait_ready()
        with open_stream(worker.url, "a") as first, open_stream(worker.url, "b") as second:
            worker.send_signal(signal.SIGTERM)
            for stream in (first, second):
                assert [event.type for event in stream.rest()] == ["gateway.closing"]
                assert stream.retry is not None
        worker.wait()
    assert "Traceback" not in worker.output


def test_streams_end_when_hypercorn_with_workers_does(tmp_path: Path, redis_server: RedisServer) -> None:
    """Nothing tells its worker processes before it cancels their requests, so these ends are no clean ones."""
    with start_worker(Form("portable", "hypercorn"), tmp_path, redis_server.url, ping_interval=0.2) as worker:
        worker.wait_ready()
        with open_stream(worker.url, "a") as stream:
            worker.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                stream.rest()
        worker.wait()


def test_a_mounted_gateway_starts_with_the_first_request(tmp_path: Path, redis_server: RedisServer) -> None:
    with Worker(tmp_path, redis_server.url) as worker:
        pass
    worker.command = uvicorn_command("testing.mounted:create", worker.port)
    with worker.start(wait=False):
        worker.wait_for_output("Uvicorn running on")
        with (
            open_stream(f"{worker.url}/sse", "a") as stream,
            socket.create_connection(("127.0.0.1", worker.port), timeout=20) as theirs,
        ):
            wait_until(lambda: redis_server.client().publish("a", "1"), "subscribed")
            assert stream.next().data == "1"
            theirs.sendall(b"GET /theirs HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while b"theirs" not in answer:
                answer += theirs.recv(65536)
            worker.send_signal(signal.SIGTERM)
            assert [event.type for event in stream.rest()] == ["gateway.closing"]
            while theirs.recv(65536):
                pass
        worker.wait()
    assert "Traceback" not in worker.output


def test_importing_changes_no_other_library() -> None:
    code = """
import logging, signal, sse_starlette.sse, uvicorn
def state():
    status = {name: value for name, value in vars(sse_starlette.sse.AppStatus).items() if not name.startswith("__")}
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return status, handlers, vars(uvicorn.Server).copy(), logging.root.handlers[:], logging.root.level
before = state()
import gateway.app, gateway.server.server
assert state() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
