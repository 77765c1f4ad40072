"""Identical messages, 2,000 a second, while clients move between workers."""

from chaos.columns import SAME_MOVING, SAME_STILL
from chaos.row import Row
from chaos.stage import Plan, Stage

_CLIENTS = 10
_MOVES = 8


def identical_messages(stage: Stage) -> None:
    """Half of the clients that count them move, again and again; the others never do."""
    for _ in range(_MOVES):
        stage.cut(0.5, SAME_MOVING)
        stage.play(0.4)


IDENTICAL = Row(
    "identical payloads, 2,000/s",
    identical_messages,
    Plan(
        streams=100,
        beside={SAME_MOVING: _CLIENTS, SAME_STILL: _CLIENTS},
        # Half a second of absence is a thousand messages; room for them, so that none of this is about limits.
        settings={"history_events": 20_000, "queue_events": 20_000, "retry_min": 0.1, "retry_max": 0.3},
    ),
)
