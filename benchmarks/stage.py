"""What every row of a benchmark stands on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One Redis, and a core for whatever is measured.

    Args:
        redis_url: of a redis-server of our own; it runs with the load.
        server_cores: for the server and what stands in front of it.
        load_cores: for everything else.
        directory: for sockets, configurations and logs.
        listen_queue: how many clients may connect at once, in a sentence.
        programs: where peers are that can't be had by themselves.
    """

    redis_url: str
    server_cores: frozenset[int]
    load_cores: frozenset[int]
    directory: Path
    listen_queue: str
    programs: Mapping[str, Path] = field(default_factory=dict)
