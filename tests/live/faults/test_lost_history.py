"""Fault 5: Redis comes back with less than it had, and publishers are there before any worker."""

import signal
from pathlib import Path

from testing.process import free_port
from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.forwarder import Forwarder
from tests.live.faults.publishing import durable, plain, wait_functions


def test_an_old_snapshot(start: Start, tmp_path: Path, channel: str) -> None:
    """The client that had been away lost 20 of 20 without being told."""
    own, shared = channel + "own", channel + "shared"
    with RedisServer(tmp_path) as server, server.client() as client:
        worker = start(server.url, durable_channels=own)
        wait_functions(client)
        with Client(own, shared) as away, Client(own, shared) as connected, Client(own) as early, Client(own) as late:
            for each in (away, connected, early, late):
                each.open(worker)
            quiet_since = late.last_event_id
            durable(client, own, [f"kept {number}" for number in range(30)])
            assert early.take(30) == [f"kept {number}" for number in range(30)]
            early.leave()
            client.save()
            durable(client, own, [f"rolled back {number}" for number in range(30)])
            for each in (away, connected, late):
                each.take(60)
            away.leave()
            late.leave()
            worker.send_signal(signal.SIGSTOP)
            try:
                server.kill()
                server.start()
                durable(client, own, [f"new {number}" for number in range(20)])
            finally:
                worker.send_signal(signal.SIGCONT)
            new = [f"new {number}" for number in range(20)]
            # Whoever stayed connected is told, too.
            assert sorted(connected.take(22)) == sorted(
                [f"gap {own} redis_restarted", f"gap {shared} redis_restarted", *new]
            )
            worker.wait_ready()
            missed = away.open(worker)
            assert [each for each in missed if each in new] == new
            assert sorted(away.gaps) == [f"gap {own} redis_restarted", f"gap {shared} redis_restarted"]
            assert len(missed) == 22
            # Redis has forgotten what it rolled back; the worker, which delivered it to others, has not.
            rolled_back = [f"rolled back {number}" for number in range(30)]
            assert early.open(worker) == [*rolled_back, f"gap {own} redis_restarted", *new]
            kept = [f"kept {number}" for number in range(30)]
            assert late.open(worker, quiet_since) == [*kept, *rolled_back, f"gap {own} redis_restarted", *new]
            # And from here on everything is in order again.
            plain(client, shared, ["live"])
            assert away.take(1) == ["live"]
            assert away.open(worker) == []
            # Where no worker remembers, what Redis keeps comes behind the gap.
            worker.kill()
            assert late.open(start(server.url, durable_channels=own), quiet_since) == [
                f"gap {own} redis_restarted", *kept, *new
            ]  # fmt: skip


def test_a_replica_that_lagged_is_promoted(start: Start, tmp_path: Path, channel: str) -> None:
    own, shared = channel + "own", channel + "shared"
    master = RedisServer(tmp_path, port=free_port())
    (tmp_path / "replica").mkdir()
    replica = RedisServer(
        tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"
    )
    with master, replica, Forwarder(master.port) as name, master.client() as old, replica.client() as new:
        wait_until(lambda: new.info("replication")["master_link_status"] == "up", "the replica follows")
        worker = start(name.url, durable_channels=own)
        wait_functions(old)
        with Client(own, shared) as away, Client(own, shared) as connected:
            away.open(worker)
            connected.open(worker)
            durable(old, own, [f"kept {number}" for number in range(5)])
            away.take(5)
            old.wait(1, 10_000)
            # What comes now, the replica doesn't get.
            old.client_kill_filter(_type="replica")
            old.config_set("repl-timeout", 1)
            new.replicaof("NO", "ONE")
            durable(old, own, [f"lost {number}" for number in range(20)])
            plain(old, shared, ["heard"])
            assert away.take(21) == connected.take(26)[5:]
            away.leave()
            name.target = replica.port
            wait_functions(new)
            durable(new, own, [f"new {number}" for number in range(20)])
            master.kill()
            fresh = [f"new {number}" for number in range(20)]
            gaps = [f"gap {own} redis_restarted", f"gap {shared} redis_restarted"]
            assert sorted(connected.take(22)) == sorted([*gaps, *fresh])
            worker.wait_ready()
            assert sorted(away.open(worker)) == sorted([*gaps, *fresh])
            plain(new, shared, ["live"])
            assert away.take(1) == connected.take(1) == ["live"]


def test_the_first_replica_ends_nothing(start: Start, tmp_path: Path, channel: str) -> None:
    """Redis gets another replication id then, and has lost nothing."""
    own, shared = channel + "own", channel + "shared"
    (tmp_path / "replica").mkdir()
    with RedisServer(tmp_path) as master, master.client() as client:
        worker = start(master.url)
        wait_functions(client)
        with Client(own, shared) as away, Client(own, shared) as connected:
            away.open(worker)
            connected.open(worker)
            durable(client, own, ["1"])
            plain(client, shared, ["2"])
            away.take(2)
            away.leave()
            before = client.hget("gateway.positions", "generation")
            replid = client.info("replication")["master_replid"]
            with RedisServer(
                tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"
            ) as replica:
                with replica.client() as second:
                    wait_until(lambda: second.info("replication")["master_link_status"] == "up", "it follows")
                assert client.info("replication")["master_replid"] != replid
                durable(client, own, ["3"])
                plain(client, shared, ["4"])
                assert client.hget("gateway.positions", "generation") == before
                assert connected.take(4) == ["1", "2", "3", "4"]
                assert sorted(away.open(worker)) == ["3", "4"]
        assert worker.alive
