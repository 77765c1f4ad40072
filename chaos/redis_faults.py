"""What breaks in Redis, or on the way to it."""

import signal
import time

from chaos import firewall
from chaos.columns import DURABLE, GROUPS, ORDERS, QUIET, QUIETS, USER
from chaos.kept import stream_key
from chaos.stage import Stage, channels_of
from chaos.worker_faults import held
from testing.servers import RedisServer
from testing.waiting import wait_until

APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")
AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""A replica need not wait for others that want a copy as well."""
EVICTION_LINGER = 2.0
"""Seconds; longer than clients need to come back, so that only channels of clients that stay away are left."""
_NOTICE = 15.0
"""Seconds until workers have noticed a failover that closes no connection."""
_BEHIND = 30
"""Durable messages that Redis forgets, or that a replica never had."""


def redis_restarts(stage: Stage) -> None:
    """By SIGKILL, so that nothing is written on the way out; some clients are away at that moment."""
    with stage.redis_lost():
        stage.cut(0.2)
        stage.redis.kill()
        stage.play(1.0)
        stage.redis.start()


def redis_drops_workers(stage: Stage) -> None:
    with stage.redis_lost(), stage.redis.client() as client:
        stage.cut(0.1)
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


def redis_rolls_back(stage: Stage) -> None:
    """Redis starts from an older snapshot, and takes new messages before any worker is back."""
    with stage.redis.client() as client:
        client.save()
    _wait_published(stage, _BEHIND)
    with stage.redis_lost(), held(stage.workers):
        stage.cut(0.2)
        stage.redis.kill()
        stage.redis.start()
        _wait_published(stage, 20)


def redis_flushed(stage: Stage) -> None:
    """Everything is deleted, all workers are new, and channels that were durable get plain messages."""
    with stage.unknown(GROUPS), stage.redis.client() as client:
        client.flushall()
        for worker in stage.workers:
            worker.kill()
        stage.publisher.send("only plain", feed="orders")
        stage.play(0.5)
        for worker in stage.workers:
            worker.start(wait=False)


def redis_evicts(stage: Stage) -> None:
    """Streams of channels on which no worker listens are deleted between two messages; so are some with listeners."""
    clients = [one for some in stage.clients.values() for one in some]
    away = channels_of(clients, (ORDERS, QUIETS))
    with stage.redis.client() as client, stage.unknown(frozenset((ORDERS, QUIETS))):
        stage.tell_fleets("leave", columns=[DURABLE, QUIET])
        wait_until(lambda: not any(count for _, count in client.pubsub_numsub(*away)), "nobody listens to them")
        _wait_published(stage, 5)
        client.delete(*map(stream_key, [*away, *channels_of(clients, (USER,))]))
        _wait_published(stage, 20)
        stage.tell_fleets("come back")
    stage.cut(0.3)
    stage.play(1.0)


def _wait_published(stage: Stage, count: int) -> None:
    """Until Redis has taken so many durable messages more."""

    def taken() -> int:
        return int(stage.publisher.ask("taken", feed="orders")["count"])

    before = taken()
    wait_until(lambda: taken() >= before + count, f"{count} durable messages")


# Failover


def replica_promoted(stage: Stage) -> None:
    """The replica stops following half a second before the switch: what came in between it never had."""
    replica = stage.replica
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    with stage.redis_lost():
        stage.cut(0.2)
        stage.play(0.5)
        stage.redis.kill()
        _publish_to(stage, replica)
        stage.forwarder.ask("aim", target=replica.port, cut=True)


def lagging_replica_promoted(stage: Stage) -> None:
    """It lacks the newest messages, and takes new ones before any worker is back."""
    replica = stage.replica
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    _wait_published(stage, _BEHIND)
    with stage.redis_lost(), held(stage.workers):
        stage.cut(0.2)
        stage.redis.kill()
        _publish_to(stage, replica)
        stage.forwarder.ask("aim", target=replica.port, cut=True)
        _wait_published(stage, 20)


def silent_failover(stage: Stage) -> None:
    """The replica takes over, publishers move, the old master follows it; no connection of a worker is closed."""
    replica = stage.replica
    old = stage.redis
    with stage.redis_lost(patience=_NOTICE), replica.client() as new_client, old.client() as old_client:
        new_client.execute_command("REPLICAOF", "NO", "ONE")
        _publish_to(stage, replica)
        stage.forwarder.ask("aim", target=replica.port, cut=False)
        stage.play(1.0)  # Sentinel, too, turns to the old master later
        stage.cut(0.2)
        began = time.monotonic_ns()
        old_client.execute_command("REPLICAOF", "127.0.0.1", replica.port)
        stage.astray = (began, began + 10**9)


def _publish_to(stage: Stage, server: RedisServer) -> None:
    stage.publisher.send("aim", host="127.0.0.1", port=server.port)
    stage.redis = server
