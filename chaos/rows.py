"""The rows of the table: each breaks one thing."""

from chaos import edge_faults, firewall, redis_faults, worker_faults
from chaos.columns import COLUMNS, DURABLE, GROUPS, ORDERS, OWN, QUIET, QUIETS
from chaos.descriptors import DESCRIPTORS
from chaos.drain import DRAIN
from chaos.identical import IDENTICAL
from chaos.promise import DURABLE_ONLY, NOWHERE, SHARED, Keeps, Promise
from chaos.redis_faults import APPEND_ONLY, AT_ONCE, EVICTION_LINGER
from chaos.row import Row
from chaos.stage import Plan
from chaos.stalled import STALLED

_ALL = frozenset(COLUMNS)
_NOT_DURABLE = _ALL - {DURABLE}

# Redis breaks and goes on with its history: durable channels are complete.
_HEARD_AGAIN = Promise(calm=DURABLE_ONLY)
# Nobody listened: on durable channels nothing is missing, everywhere else nobody knows.
_NOBODY_LISTENED = Promise(calm=DURABLE_ONLY, told=_NOT_DURABLE)
# A generation of Redis ends: whoever crosses that is told.
_RESTARTED = Promise(calm=NOWHERE, told=_ALL)
_ROLLED_BACK = Promise(Keeps.SOME, calm=NOWHERE, told=_ALL)
_LOST_ALL = Promise(Keeps.NOTHING, calm=NOWHERE, told=_ALL)

_FORWARDED = Plan(forwarded=True, replica=True, redis=AT_ONCE)

ROWS = [
    # Clients and nginx
    Row("client reconnects", edge_faults.clients_reconnect),
    Row(
        "nginx reload",
        edge_faults.nginx_reloads,
        Plan(nginx={"worker_shutdown_timeout 10s;": "worker_shutdown_timeout 3s;"}),
    ),
    Row("nginx restart", edge_faults.nginx_restarts),
    STALLED,
    IDENTICAL,
    # Workers
    Row("worker SIGKILL", worker_faults.worker_killed, promise=Promise(calm=SHARED, unmoved=OWN)),
    Row("worker SIGTERM", worker_faults.worker_leaves),
    Row("rolling replacement", worker_faults.all_workers_replaced),
    Row("rolling update", worker_faults.workers_updated, Plan(workers=4, late=1)),
    Row("all workers SIGKILL", worker_faults.all_workers_killed, promise=_NOBODY_LISTENED),
    Row("all workers SIGTERM", worker_faults.all_workers_leave, promise=_NOBODY_LISTENED),
    Row("worker stalled 0.4 s", worker_faults.worker_stalled(0.4)),
    Row("worker stalled 4 s", worker_faults.worker_stalled(4.0)),
    Row("one worker cut off from Redis", worker_faults.worker_cut_off, promise=Promise(calm=SHARED)),
    DESCRIPTORS,
    DRAIN,
    # Redis
    Row("Redis restart, persistent", redis_faults.redis_restarts, Plan(redis=APPEND_ONLY), _RESTARTED),
    Row("Redis restart, not persistent", redis_faults.redis_restarts, promise=_LOST_ALL),
    Row("Redis restart, older snapshot", redis_faults.redis_rolls_back, promise=_ROLLED_BACK),
    Row("Redis CLIENT KILL", redis_faults.redis_drops_workers, promise=_HEARD_AGAIN),
    Row(
        "Redis unreachable 10 s",
        redis_faults.redis_unreachable,
        promise=_HEARD_AGAIN,
        impossible=firewall.unavailable,
    ),
    Row("Redis CLIENT PAUSE 5 s", redis_faults.redis_pauses, promise=_HEARD_AGAIN),
    Row("Redis SIGSTOP 5 s", redis_faults.redis_stopped, promise=_HEARD_AGAIN),
    Row("replica promoted", redis_faults.replica_promoted, _FORWARDED, _ROLLED_BACK),
    Row(
        "lagging replica promoted",
        redis_faults.lagging_replica_promoted,
        _FORWARDED,
        _ROLLED_BACK,
    ),
    Row("silent failover", redis_faults.silent_failover, _FORWARDED, _ROLLED_BACK),
    Row(
        "streams evicted",
        redis_faults.redis_evicts,
        Plan(settings={"linger": EVICTION_LINGER}),
        # Who was away for longer than a channel lingers is told, and so is who misses what was deleted.
        Promise(Keeps.SOME, calm=GROUPS - {ORDERS, QUIETS}, told=frozenset((DURABLE, QUIET))),
    ),
    Row("FLUSHALL, cold workers", redis_faults.redis_flushed, Plan(declared=False), _LOST_ALL),
]
