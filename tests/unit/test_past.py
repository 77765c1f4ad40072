"""What is asked of others: once, and anew over a new connection to Redis."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.broker.past import PastOfOthers
from gateway.broker.wire import Question
from gateway.memory.durable_channels import DurableChannels
from gateway.memory.entry import Entry
from gateway.memory.event import Event
from gateway.memory.hole import UNKNOWN, Hole
from gateway.memory.merge import Known
from gateway.memory.position import Position
from gateway.memory.topic import Topic
from gateway.ports import Interrupted
from tests.unit.entrance import Entrance, idle, run


def _at(count: int) -> Position:
    return Position(1, 1, 0, count)


_KEPT = Entry(_at(1), "a", Event(b"kept"))


class Peers:
    """The other workers, which answer when the test has them do so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Question], asyncio.Future[Mapping[Question, list[Known]]]]] = []

    async def ask(self, questions: Sequence[Question]) -> Mapping[Question, list[Known]]:
        future = asyncio.get_running_loop().create_future()
        self.asked.append((questions, future))
        answers: Mapping[Question, list[Known]] = await future
        return answers

    def answer(self, at: int, *texts: str) -> None:
        questions, future = self.asked[at]
        known = {
            question: [
                Known(
                    question.start,
                    question.end,
                    [Entry(_at(count), "a", Event(text.encode())) for count, text in enumerate(texts, 1)],
                )
            ]
            for question in questions
        }
        future.set_result(known)


class RedisHistory:
    """What Redis keeps: the first of the durable messages."""

    async def within(
        self, missing: Sequence[tuple[Topic, Hole]], give_up: bool
    ) -> dict[tuple[Topic, Hole], tuple[Sequence[Entry], bool, str]]:
        assert not give_up
        return dict.fromkeys(missing, ([_KEPT], True, "not_kept"))


async def _asked(entrance: Entrance) -> tuple[PastOfOthers, Peers, Topic, Hole]:
    entrance.enter("a")
    await idle()
    entrance.open("a")
    peers: Any = Peers()
    history: Any = RedisHistory()
    past = PastOfOthers(entrance.listening, peers, history, DurableChannels(()))
    return past, peers, entrance.topic("a"), Hole(_at(0), _at(2), UNKNOWN)


def test_who_asks_over_a_new_connection_does_not_get_the_former_ones_failure() -> None:
    async def play() -> None:
        entrance = Entrance()
        past, peers, topic, hole = await _asked(entrance)
        first = asyncio.create_task(past.find(topic, hole))
        await idle()
        entrance.lose()
        entrance.open("a")
        second, third = (asyncio.create_task(past.find(topic, hole)) for _ in range(2))
        await idle()
        peers.answer(0, "of the former connection")
        await idle()
        assert isinstance(first.exception(), Interrupted)
        assert not second.done()
        peers.answer(1, "1", "2")
        await idle()
        for each in (second, third):
            assert [kept.event.data for kept in each.result() if isinstance(kept, Entry)] == [b"1", b"2"]
        assert len(peers.asked) == 2, "each asked once"

    run(play)


def test_redis_alone_is_asked_where_the_workers_answers_never_arrive() -> None:
    async def play() -> None:
        entrance = Entrance()
        past, peers, topic, hole = await _asked(entrance)
        asking = [asyncio.create_task(past.find(topic, hole, workers)) for workers in (False, True)]
        await idle()
        peers.answer(0, "1", "2")
        await idle()
        of_redis, of_all = (each.result() for each in asking)
        assert of_redis == [hole._replace(kind="not_kept"), _KEPT]
        assert [kept.event.data for kept in of_all if isinstance(kept, Entry)] == [b"1", b"2"]

    run(play)


def test_what_waits_to_be_asked_when_the_connection_is_lost_is_not_asked_over_the_next() -> None:
    async def play() -> None:
        entrance = Entrance()
        past, peers, topic, hole = await _asked(entrance)
        asking = []
        for end in range(2, 8):
            asking.append(asyncio.create_task(past.find(topic, hole._replace(end=_at(end)))))
            await idle()
        under_way = len(peers.asked)
        assert under_way < len(asking)
        entrance.lose()
        entrance.open("a")
        for at in range(under_way):
            peers.answer(at, "1")
        await idle()
        assert all(each.done() for each in asking)
        assert [type(each.exception()) for each in asking] == [Interrupted] * len(asking)
        assert len(peers.asked) == under_way

    run(play)
