"""A simulated Redis: Pub/Sub in order, and what broker/library.lua keeps."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.memory.event import DURABLE_MARK
from gateway.memory.listening import Key
from gateway.memory.position import ZERO, Position
from tests.unit.model.names import DECLARED, NAMES, matches

FIRST_GENERATION = 10**13
TICKS = b"gateway.tick.0"


class Refused(Exception):
    """Redis refuses to count: out of memory, too few replicas."""


class Demoted(Refused):
    """It is a replica now."""


@dataclass
class Data:
    """What Redis keeps, loses, and takes from a replica.

    Attributes:
        owner: identity of the server that began the generation.
        ended: the earlier generations, in order, and where each ended.
        newest: by channel, the position of its newest durable message.
        streams: by channel, its durable messages: position, position of the one before, text.
    """

    clock: int = 0
    generation: int = 0
    owner: str = ""
    ticked: int = 0
    ticked_at: int = 0
    ended: dict[int, int] = field(default_factory=dict)
    newest: dict[str, Position] = field(default_factory=dict)
    streams: dict[str, list[tuple[Position, Position, bytes]]] = field(default_factory=dict)


class Logged(NamedTuple):
    """A published message.

    Attributes:
        positions: by topic, where a listener that hears everything counts it.
        delivered: not rejected by the gateway.
    """

    number: int
    channel: str
    positions: dict[str, Position]
    durable: bool
    delivered: bool
    own_id: str | None


class Issued(NamedTuple):
    """What a request for a tick returns; see `TickReply` in broker/library.py."""

    generation: int
    number: int
    wait: int


class Item(NamedTuple):
    """Something that a connection brings.

    Attributes:
        kind: `message`, `pmessage`, `subscribe`, `unsubscribe`, or `call` for what other workers send.
        newest: of a reply, the number of the newest message before it.
    """

    kind: str
    key: Key = (False, b"")
    channel: bytes = b""
    payload: bytes = b""
    call: Callable[[], None] | None = None
    newest: int = -1


class Connection:
    """A worker's connection, with what is still to be read from it."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.inbox: deque[Item] = deque()
        self.keys: dict[Key, None] = {}
        server.connections[self] = None

    def subscribe(self, key: Key) -> None:
        self.keys[key] = None
        self.inbox.append(Item("subscribe", key, newest=len(self.server.counters.log) - 1))

    def unsubscribe(self, key: Key) -> None:
        self.keys.pop(key, None)
        self.inbox.append(Item("unsubscribe", key))

    def close(self) -> None:
        self.server.connections.pop(self, None)


class Counters:
    """What all servers of a world number and log together."""

    def __init__(self, rng: random.Random, spacing: int) -> None:
        self.rng = rng
        self.spacing = spacing
        self.now = 0
        self.log: list[Logged] = []
        self._identities = 0
        self._generations = 0

    def identity(self) -> str:
        self._identities += 1
        return f"{self._identities:016x}:{self._identities:016x}"

    def generation(self) -> int:
        self._generations += 1
        return FIRST_GENERATION + 2 * self._generations

    def interregnum(self) -> int:
        """Orders what comes after the newest generation and before the next."""
        return FIRST_GENERATION + 2 * self._generations + 1


class Server:
    """One Redis server.

    Attributes:
        alive: it accepts commands, and its connections are open.
        replica_of: its master, if it is a replica.
        refuses: it delivers, but doesn't count.
        era: where a listener that hears everything is.
    """

    def __init__(self, counters: Counters, data: Data) -> None:
        self.counters = counters
        self.data = data
        self.identity = counters.identity()
        self.connections: dict[Connection, None] = {}
        self.replicas: list[Server] = []
        self.alive = True
        self.replica_of: Server | None = None
        self.refuses = False
        self.era: tuple[int, int] = (counters.interregnum(), 0)
        self._counts: dict[str, Position] = {}

    def tick(self, seen: tuple[int, int] | None) -> Issued:
        """As `tick` in broker/library.lua.

        Raises:
            Refused: it doesn't count.
        """
        self._begin()
        data, now = self.data, self.counters.now
        if data.ticked and seen is not None and (seen[0] != data.generation or seen[1] < data.ticked):
            return Issued(data.generation, data.ticked, 0)
        age = now - data.ticked_at
        if data.ticked and age < self.counters.spacing:
            return Issued(data.generation, data.ticked, self.counters.spacing - age)
        data.clock += 1
        data.ticked, data.ticked_at = data.clock, now
        lineage = ",".join(f"{generation}:{end}" for generation, end in data.ended.items())
        self._publish(TICKS, f"3 {data.generation} {data.clock} {self.identity} {lineage}".encode())
        self.era, self._counts = (data.generation, data.ticked), {}
        return Issued(data.generation, data.ticked, 0)

    def publish(self, channel: str, durable: bool, own_id: str | None, garbage: bool) -> bool:
        """Publish the next event; False if Redis refuses it."""
        number = len(self.counters.log)
        body = b"%d" % number
        if own_id is not None:
            body = b'{"event":"","data":"%d","id":"%b"}' % (number, own_id.encode())
        if garbage:
            body = b"\xff" + body
        position = ZERO
        if durable:
            try:
                self._begin()
            except Refused:
                return False
            data = self.data
            data.clock += 1
            self.era = (data.generation, data.ticked)
            position = Position(*self.era, data.clock)
            data.streams.setdefault(channel, []).append((position, data.newest.get(channel, ZERO), body))
            data.newest[channel] = position
        positions = {}
        for topic in NAMES:
            if matches(topic, channel):
                before = self._counts.get(topic, Position(*self.era))
                after = position if durable else before._replace(count=before[3] + 1)
                self._counts[topic] = positions[topic] = after
        delivered = not garbage and (durable or channel not in DECLARED)
        self.counters.log.append(Logged(number, channel, positions, durable, delivered, own_id))
        head = b"%b%d-%010d\n" % (DURABLE_MARK, position.generation, position.durable) if durable else b""
        self._publish(channel.encode(), head + body)
        return True

    def call_all(self, call: Callable[[Connection], Callable[[], None]]) -> int:
        """Send something to all workers, in its place among the messages; returns how many receive it."""
        for server in (self, *self.replicas):
            for connection in server.connections:
                connection.inbox.append(Item("call", call=call(connection)))
        return len(self.connections)

    def lineage(self) -> set[int]:
        return {self.data.generation, *self.data.ended}

    def read(
        self, channel: str, after: tuple[int, int], until: tuple[int, int]
    ) -> tuple[list[tuple[Position, bytes]], bool]:
        """Durable messages after one number, up to another, and whether they are all there ever were.

        Raises:
            Refused: a new generation would have to begin.
        """
        self._begin()
        data = self.data
        whole = until[0] == data.generation and (after[0] == data.generation or (after == (0, 0) and not data.ended))
        found: list[tuple[Position, bytes]] = []
        before: Position | None = None
        kept = data.streams.get(channel, [])
        for position, prior, body in [*kept, (None, data.newest.get(channel, ZERO), b"")]:
            if position is not None and _number(position) <= after:
                continue
            whole &= prior == before if before is not None else _number(prior) <= after
            if position is None or _number(position) > until:
                break
            before = position
            found.append((position, body))
        return found, whole

    def _begin(self) -> None:
        if self.replica_of is not None:
            raise Demoted
        if self.refuses:
            raise Refused
        data = self.data
        if data.owner != self.identity:
            if data.generation:
                data.ended[data.generation] = data.clock
            data.clock += 1
            data.generation, data.owner, data.ticked = self.counters.generation(), self.identity, 0

    def _publish(self, channel: bytes, payload: bytes) -> None:
        for server in (self, *self.replicas):
            for connection in server.connections:
                if channel == TICKS:
                    connection.inbox.append(Item("message", (False, TICKS), TICKS, payload))
                    continue
                if (False, channel) in connection.keys:
                    connection.inbox.append(Item("message", (False, channel), channel, payload))
                patterns = [key for key in connection.keys if key[0] and matches(key[1].decode(), channel.decode())]
                self.counters.rng.shuffle(patterns)
                connection.inbox.extend([Item("pmessage", key, channel, payload) for key in patterns])


def _number(position: Position) -> tuple[int, int]:
    return position.generation, position.number
