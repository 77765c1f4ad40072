"""Fault 6: a failover that closes no connection. 726 of 3,900 were lost, and /readyz said 200 throughout."""

from pathlib import Path

from testing.http import metric
from testing.servers import RedisServer
from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.forwarder import Forwarder
from tests.live.faults.publishing import durable, plain, wait_functions


def test_a_failover_that_closes_no_connection(start: Start, tmp_path: Path, channel: str) -> None:
    own, shared = channel + "own", channel + "shared"
    (tmp_path / "replica").mkdir()
    with RedisServer(tmp_path) as old, Forwarder(old.port) as name, old.client() as before:
        replica = RedisServer(
            tmp_path / "replica", "--replicaof", "127.0.0.1", str(old.port), "--repl-diskless-sync-delay", "0"
        )
        with replica as new, new.client() as after:
            wait_until(lambda: after.info("replication")["master_link_status"] == "up", "the replica follows")
            workers = [start(name.url, durable_channels=own) for _ in range(2)]
            wait_functions(before)
            mixed, quiet, away = Client(own, shared), Client(shared + "-quiet"), Client(own, shared)
            wild = Client(patterns=[shared + "*"])
            mixed.open(workers[0])
            quiet.open(workers[1])
            wild.open(workers[1])
            away.open(workers[1])
            durable(before, own, ["own 0"])
            plain(before, shared, ["shared 0"])
            assert away.take(2) == mixed.take(2) == ["own 0", "shared 0"]
            assert wild.take(1) == ["shared 0"]
            away.leave()
            # As a sentinel does it, with clients that nobody tells.
            after.replicaof("NO", "ONE")
            before.replicaof("127.0.0.1", str(new.port))
            for worker in workers:
                wait_until(lambda worker=worker: not worker.ready(), "it notices")  # type: ignore[misc]
            wait_functions(after)
            durable(after, own, [f"own {number}" for number in range(1, 21)])
            plain(after, shared, [f"shared {number}" for number in range(1, 21)])
            name.target = new.port
            for worker in workers:
                worker.wait_ready()
            plain(after, shared, ["end"])
            for client in (mixed, wild):
                client.until("end")
            kept = [f"own {number}" for number in range(1, 21)]
            assert [each for each in mixed.events if each in kept] == kept
            assert sorted(mixed.gaps) == [f"gap {own} redis_restarted", f"gap {shared} redis_restarted"]
            assert wild.gaps == [f"gap {shared}* redis_restarted"]
            assert quiet.take(1) == [f"gap {shared}-quiet redis_restarted"]
            missed = away.open(workers[0])
            assert [each for each in missed if each in kept] == kept
            assert sorted(away.gaps) == [f"gap {own} redis_restarted", f"gap {shared} redis_restarted"]
            assert all(metric(worker, "redis_connects_total") > 1 for worker in workers)
            for client in (mixed, quiet, away, wild):
                assert len(client.events) == len(set(client.events))
                client.leave()


def test_publishers_that_move_first(start: Start, tmp_path: Path, channel: str) -> None:
    """Plain messages may be missing behind a gap; durable ones may not, and none comes twice."""
    own, shared = channel + "own", channel + "shared"
    (tmp_path / "replica").mkdir()
    with RedisServer(tmp_path) as old, Forwarder(old.port) as name, old.client() as before:
        replica = RedisServer(
            tmp_path / "replica", "--replicaof", "127.0.0.1", str(old.port), "--repl-diskless-sync-delay", "0"
        )
        with replica as new, new.client() as after:
            wait_until(lambda: after.info("replication")["master_link_status"] == "up", "the replica follows")
            worker = start(name.url)
            wait_functions(before)
            with Client(own, shared) as client:
                client.open(worker)
                durable(before, own, ["own 0"])
                plain(before, shared, ["shared 0"])
                client.take(2)
                before.wait(1, 10_000)
                after.replicaof("NO", "ONE")
                durable(after, own, [f"own {number}" for number in range(1, 11)])
                plain(after, shared, ["shared 1"])
                name.target = new.port
                before.replicaof("127.0.0.1", str(new.port))
                durable(after, own, [f"own {number}" for number in range(11, 21)])
                wait_until(lambda: metric(worker, "redis_connects_total") > 1, "it connects again")
                worker.wait_ready()
                plain(after, shared, ["end"])
                client.until("end")
            kept = [f"own {number}" for number in range(21)]
            assert [each for each in client.events if each in kept] == kept
            assert sorted(client.gaps) == [f"gap {own} redis_restarted", f"gap {shared} redis_restarted"]
