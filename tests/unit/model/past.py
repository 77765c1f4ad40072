"""What others know, in the simulated world: as broker/past.py and broker/peers.py find it out, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from gateway.broker.coverage import enough, newest_within, ranges_of
from gateway.broker.wire import Question, dump_known, dump_ranges, load_known, load_ranges
from gateway.memory.durables import fill, reason_of
from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Undeliverable, parse
from gateway.memory.hole import LOST, Hole
from gateway.memory.merge import Known, merge
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from tests.unit.model.names import CHANNELS, matches
from tests.unit.model.processes import Process, Wait, at_some_time
from tests.unit.model.server import Connection, Refused

if TYPE_CHECKING:
    from tests.unit.model.worker import Worker

_ROOM = 4_194_304


class Asked:
    """A question under way, which all who ask the same share."""

    def __init__(self) -> None:
        self.done = False
        self.kept: list[Kept] | None = None


class Inquiry:
    """A question to all workers, or to one, that waits for answers.

    Attributes:
        peers: whom it has reached and who hasn't answered.
    """

    def __init__(self, peers: dict[Worker, Connection]) -> None:
        self.peers = peers
        self.answers: dict[Worker, list[object]] = {}


class Past:
    """One worker's questions."""

    def __init__(self, worker: Worker, durable_only: Callable[[Topic], bool]) -> None:
        self._worker = worker
        self._durable_only = durable_only
        self._shared: dict[tuple[Topic, Hole], Asked] = {}

    def find(self, topic: Topic, hole: Hole) -> Asked:
        """Ask what is missing in a hole."""
        key = (topic, hole)
        asked = self._shared.get(key)
        if asked is None:
            asked = self._shared[key] = Asked()
            self._worker.processes.start(self._answer(topic, hole, asked))
        return asked

    def entries(
        self, topic: Topic, after: Position, until: Position
    ) -> Generator[Wait, bool, tuple[list[Entry], bool]]:
        """Durable messages that Redis keeps, and whether they are complete.

        Raises:
            Refused: Redis can't be read.
        """
        worker = self._worker
        yield Wait(at_some_time)
        if not worker.connection.server.alive:
            raise Refused
        found: list[Entry] = []
        complete = True
        for channel in [each for each in CHANNELS if matches(topic.name, each)]:
            messages, whole = worker.connection.server.read(
                channel, (after.generation, after.number), (until.generation, until.number)
            )
            complete &= whole
            for position, body in messages:
                try:
                    found.append(Entry(position, channel, parse(body, True, 1_000_000, 256)))
                except Undeliverable:
                    continue
        found.sort(key=lambda entry: entry.position)
        yield Wait(at_some_time)
        return found, complete

    def _answer(self, topic: Topic, hole: Hole, asked: Asked) -> Process:
        listening = self._worker.listening
        epoch = listening.epoch
        yield Wait(at_some_time)
        found: list[Kept] = [hole]
        if hole.kind != LOST or (yield from self._witnessed(hole)):
            question = Question(topic.name, topic.is_pattern, hole.position, hole.end)
            found = merge(hole.position, hole.end, (yield from self.ask(question)))
        holes = [each._replace(kind=hole.kind) for each in found if isinstance(each, Hole)]
        kept: dict[Hole, tuple[Sequence[Entry], bool, str]] = {}
        durable_only = self._durable_only(topic)
        for each in holes:
            try:
                entries, complete = yield from self.entries(topic, each.position, each.end)
            except Refused:
                kept[each] = ((), False, "history_unavailable")
                continue
            inside = [entry for entry in entries if each.position < entry.position <= each.end]
            kept[each] = (inside, complete, reason_of(each, durable_only))
        found = fill(
            found,
            {each: kept[each._replace(kind=hole.kind)] for each in found if isinstance(each, Hole)},
            durable_only,
        )
        if epoch == listening.epoch:
            topic.ring.learn(hole.position, hole.end, found)
            asked.kept = found
        asked.done = True
        del self._shared[topic, hole]

    def ask(self, question: Question) -> Generator[Wait, bool, list[Known]]:
        """What the other workers know."""

        def ranges(peer: Worker) -> object:
            return dump_ranges(peer.peers._know(question))

        def events(peer: Worker) -> object:
            known = peer.peers._know(question)
            return None if known is None else dump_known(newest_within(known, _ROOM)[0])

        told: list[Known] = []
        for _ in range(3):
            answers = yield from self._ask_all(ranges)
            known = {peer: load_ranges(answer) for peer, answer in answers.items()}
            by_name = {peer.peers.name: peer for peer in known}
            failed = False
            for name in enough(question, {peer.peers.name: of for peer, of in known.items() if of is not None}):
                answers = yield from self._ask_all(events, by_name[name])
                given = [load_known(answer) for answer in answers.values() if answer is not None]
                told += given
                failed |= not given
            if not failed:
                break
        return told

    def known_to_those_who_stay(
        self, questions: Sequence[Question]
    ) -> Generator[Wait, bool, list[list[tuple[Position, Position]]]]:
        """For each question, the ranges that the workers know that aren't leaving."""

        def ranges(peer: Worker) -> object:
            return [None if peer.leaving else dump_ranges(peer.peers._know(question)) for question in questions]

        answers: list[Any] = list((yield from self._ask_all(ranges)).values())
        known = [[load_ranges(answer[place]) for answer in answers] for place in range(len(questions))]
        return [[range_ for each in of if each is not None for range_ in ranges_of(each)] for of in known]

    def _witnessed(self, hole: Hole) -> Generator[Wait, bool, bool]:
        """Whether another worker has heard everything between the ticks around a hole."""
        start, end = Position(*hole.position[:2]), hole.end
        if start.generation != end.generation:
            return False

        def heard(peer: Worker) -> bool:
            since, era = peer.listening.since, peer.listening.era
            return since is not None and era is not None and since <= start and end <= Position(*era, 1 << 60)

        answers = yield from self._ask_all(heard)
        return any(answers.values())

    def _ask_all(
        self, answer: Callable[[Worker], object], only: Worker | None = None
    ) -> Generator[Wait, bool, dict[Worker, object]]:
        """Ask all others, or one of them. Who is gone will not answer; all others do on reading the question."""
        worker = self._worker
        listening, epoch = worker.listening, worker.listening.epoch
        yield Wait(at_some_time)
        server, mine = worker.connection.server, worker.connection
        if not server.alive or epoch != listening.epoch:
            return {}
        asked: dict[Worker, Connection] = {}
        answers: dict[Worker, object] = {}

        def question(connection: Connection) -> Callable[[], None]:
            peer = worker.world.worker_of(connection)
            if peer is None or peer is worker or (only is not None and peer is not only):
                return lambda: None
            asked[peer] = connection

            def answer_it() -> None:
                def arrived() -> None:
                    answers[peer] = value
                    asked.pop(peer, None)

                value = answer(peer)
                worker.bring(mine, arrived)

            return answer_it

        server.call_all(question)

        def complete() -> bool:
            gone = [peer for peer, connection in asked.items() if peer.connection is not connection or peer.gone]
            on_its_way = any(item.call is not None for item in worker.connection.inbox)
            return epoch != listening.epoch or (len(gone) == len(asked) and not on_its_way)

        yield Wait(complete, patient=False)
        return answers
