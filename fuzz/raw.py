"""Requests that are nearly HTTP, byte by byte."""

import asyncio
from collections.abc import Container, Mapping, Sequence
from typing import Any, ClassVar

from fuzz.answers import Answer, Malformed, read_answers
from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.connection import Sending, exchange
from fuzz.grammar import request
from fuzz.stage import Stage
from fuzz.target import Target

_AT_A_TIME = 50


class RawRequests(Target):
    """Request lines, headers, bodies, chunks and pipelines on raw connections, by grammar and mutated; each answer
    must be well-formed, and none 500.
    """

    name = "raw requests"
    share = 46
    settings: ClassVar[Mapping[str, Any]] = {"head_timeout": 1, "body_timeout": 1, "keepalive_timeout": 1}

    def make(self, chance: Chance) -> Any:
        requests = [request(chance) for _ in range(chance.one([1, 1, 1, 1, 1, 2, 3, 6]))]
        if chance.perhaps(0.05):  # cut off
            last = requests[-1]
            requests[-1] = last._replace(body=last.body[: chance.randint(0, len(last.body))])
        data = b"".join(head + body for head, body in requests)
        if chance.perhaps(0.15):
            data = chance.mutated(data)
        return [pieces(chance, data), len(requests), chance.weighted({"wait": 90, "close": 8, "reset": 2})]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        return await play_all(stage.worker.port, cases, self)


async def play_all(
    port: int, cases: Sequence[Case], target: Target, errors: Container[int] = (503,)
) -> list[Failure]:
    """Send each case on a connection of its own, and judge the answers.

    Args:
        errors: what a server may say from 500 on.
    """
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def play(case: Case) -> Failure | None:
        async with gate:
            data = await exchange(port, Sending(*case.content))
        try:
            answers = read_answers(data)
        except Malformed as error:
            return Failure(case, f"{error} in {data[:500]!r}")
        target.counts["no answer"] += not answers
        for answer in answers:
            target.counts[_kind(answer)] += 1
            if answer.status >= 500 and answer.status not in errors:
                return Failure(case, f"{answer.status}: {answer.body[:500]!r}")
        return None

    return [failure for failure in await asyncio.gather(*map(play, cases)) if failure is not None]


def _kind(answer: Answer) -> str:
    if answer.body.startswith((b"Invalid HTTP", b"The request's")):
        return "no HTTP"  # the first check
    return f"{answer.status // 100}xx" if answer.status else "cut off"


def pieces(chance: Chance, data: bytes) -> list[bytes]:
    """The bytes in one piece, or in a few."""
    if chance.perhaps(0.7):
        return [data]
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(1, 4)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if begin < end]
