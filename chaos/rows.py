"""The rows of the table: each breaks one thing."""

import os
import signal
import subprocess
import time

from chaos import firewall
from chaos.drain import DRAIN
from chaos.row import Row
from chaos.stage import Plan, Stage
from chaos.stalled import STALLED
from testing.process import free_port
from testing.servers import RedisServer
from testing.waiting import wait_until

APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")


def clients_reconnect(stage: Stage) -> None:
    """A tenth of the clients lose their network, again and again."""
    for _ in range(20):
        stage.tell_fleets("cut", share=0.1)
        stage.play(0.25)


def worker_killed(stage: Stage) -> None:
    worker = stage.victim()
    worker.kill()
    worker.start()


def worker_leaves(stage: Stage) -> None:
    worker = stage.victim()
    worker.stop()
    worker.start()


def all_workers_replaced(stage: Stage) -> None:
    for worker in stage.workers:
        worker.stop()
        worker.start()


def nginx_reloads(stage: Stage) -> None:
    """The old processes keep their streams until `worker_shutdown_timeout`, shortened here to 3 s."""
    before = stage.total("opened")
    stage.nginx.send_signal(signal.SIGHUP)
    wait_until(lambda: stage.total("opened") - before >= 0.9 * stage.total("clients"), "the old ones let go", 20)


def nginx_restarts(stage: Stage) -> None:
    stage.nginx.stop()
    stage.play(0.5)
    stage.nginx.start()


def redis_restarts(stage: Stage) -> None:
    """By SIGKILL, so that nothing is written on the way out; some clients are away at that moment."""
    with stage.redis_lost():
        stage.tell_fleets("cut", share=0.2)
        stage.redis.kill()
        stage.play(1.0)
        stage.redis.start()


def redis_drops_workers(stage: Stage) -> None:
    with stage.redis_lost(), stage.redis.client() as client:
        stage.tell_fleets("cut", share=0.1)
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def redis_unreachable(stage: Stage) -> None:
    with stage.redis_lost(), firewall.unreachable(stage.redis_address, stage.redis.port):
        began = time.monotonic()
        wait_until(lambda: not any(worker.ready() for worker in stage.workers), "the workers notice", 10)
        noticed = time.monotonic() - began
        stage.notes.append(f"all workers noticed within {noticed:.1f} s")
        if noticed > 5:
            stage.faults.append(f"a worker took {noticed:.1f} s to notice that Redis is away, not 5 s")
        stage.play(max(0.0, began + 10 - time.monotonic()))


def redis_pauses(stage: Stage) -> None:
    with stage.redis_lost():
        with stage.redis.client() as client:
            client.execute_command("CLIENT", "PAUSE", "5000", "ALL")
        stage.play(5.0)


def redis_stopped(stage: Stage) -> None:
    with stage.redis_lost():
        stage.redis.send_signal(signal.SIGSTOP)
        try:
            stage.play(5.0)
        finally:
            stage.redis.send_signal(signal.SIGCONT)


def replica_promoted(stage: Stage) -> None:
    """The replica stops following half a second before the switch: what came in between it never had."""
    replica = RedisServer(stage.directory, "--replicaof", f"127.0.0.1 {stage.redis.port}", port=free_port())
    stage.keep(replica)
    with replica.client() as client:

        def follows() -> bool:
            replication = client.info("replication")
            return replication["master_link_status"] == "up" and not replication["master_sync_in_progress"]

        wait_until(follows, "the replica follows")
        stage.play(1.0)
        client.execute_command("REPLICAOF", "NO", "ONE")
    stage.tell_fleets("cut", share=0.2)
    stage.play(0.5)
    with stage.redis_lost():
        stage.redis.kill()
        stage.publisher.send("aim", host="127.0.0.1", port=replica.port)
        stage.forwarder.ask("aim", target=replica.port)


def worker_without_descriptors(stage: Stage) -> None:
    """A third of all clients come back again and again, to a worker that may not even have the files it had."""
    worker = stage.victim()
    soft, hard = _file_limit(worker.pid)
    # nginx evens the streams out as clients come back: a worker that has more than its share would never get there.
    streams = int(worker.metric("gateway_streams"))
    share = stage.plan.streams // len(stage.workers)
    most = _files(worker.pid) - streams + min(streams, share) * 4 // 5
    _set_file_limit(worker.pid, most, hard)
    began, short = time.monotonic(), 0
    try:
        for _ in range(10):
            stage.tell_fleets("cut", share=0.3)
            stage.play(0.4)
            short += _files(worker.pid) >= most
    finally:
        _set_file_limit(worker.pid, soft, hard)
    stage.notes.append(f"for {time.monotonic() - began:.0f} s one worker might open {most} files, not {soft}")
    if not short:
        stage.faults.append("the worker never ran out of descriptors: the row shows nothing")


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _file_limit(pid: int) -> tuple[int, int]:
    words = subprocess.run(
        ["prlimit", "--nofile", "--raw", "--noheadings", "--output", "SOFT,HARD", "--pid", str(pid)],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    return int(words[0]), int(words[1])


def _set_file_limit(pid: int, soft: int, hard: int) -> None:
    subprocess.run(["prlimit", f"--nofile={soft}:{hard}", "--pid", str(pid)], check=True)


ROWS = [
    Row("client reconnects", clients_reconnect),
    Row("worker SIGKILL", worker_killed),
    Row("worker SIGTERM", worker_leaves),
    Row("rolling replacement", all_workers_replaced),
    Row(
        "nginx reload",
        nginx_reloads,
        Plan(nginx={"worker_shutdown_timeout 10s;": "worker_shutdown_timeout 3s;"}),
    ),
    Row("nginx restart", nginx_restarts),
    Row("Redis restart, persistent", redis_restarts, Plan(redis=APPEND_ONLY)),
    Row("Redis restart, not persistent", redis_restarts, keeps=False),
    Row("Redis CLIENT KILL", redis_drops_workers),
    Row("Redis unreachable 10 s", redis_unreachable, impossible=firewall.unavailable),
    Row("Redis CLIENT PAUSE 5 s", redis_pauses),
    Row("Redis SIGSTOP 5 s", redis_stopped),
    Row("replica promoted", replica_promoted, Plan(forwarded=True), keeps=False),
    STALLED,
    Row("worker out of descriptors", worker_without_descriptors),
    DRAIN,
]
