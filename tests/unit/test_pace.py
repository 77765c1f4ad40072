"""What many want at once is done in many turns of the event loop."""

import asyncio
from typing import Any

import jwt
import pytest

from gateway.auth.keys import secret_key
from gateway.auth.tokens import Tokens
from gateway.pace import Pace

pytestmark = pytest.mark.anyio

SECRET = "a secret that is long enough for anybody"


class Beside:
    """What else there is to do, once in each turn of the loop.

    Attributes:
        seen: how much was done by then, in each.
    """

    def __init__(self, done: list[int]) -> None:
        self.seen: list[int] = []
        self._done = done
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self.seen.append(len(self._done))
            await asyncio.sleep(0)

    def most(self) -> int:
        """What was done between two of them at most."""
        self._task.cancel()
        return max(
            later - earlier for earlier, later in zip(self.seen, [*self.seen[1:], len(self._done)], strict=True)
        )


async def test_who_comes_alone_does_not_wait() -> None:
    pace = Pace()
    for _ in range(3):
        with pytest.raises(StopIteration):
            pace.turn().send(None)
        await asyncio.sleep(0)


async def test_one_begins_in_each_turn_of_the_loop_in_order() -> None:
    pace = Pace()
    done: list[int] = []

    async def work(number: int) -> None:
        await pace.turn()
        done.append(number)

    beside = Beside(done)
    await asyncio.gather(*map(work, range(20)))
    assert done == list(range(20))
    assert beside.most() == 1


async def test_who_leaves_holds_nobody_up() -> None:
    pace = Pace()
    waiting = [asyncio.create_task(pace.turn()) for _ in range(4)]
    for _ in range(2):  # then the first has had its turn, and the second has one and doesn't know it yet
        await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False, False]
    for task in waiting[1:3]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [False, True, True, False]


async def test_tokens_never_seen_before_are_verified_one_after_the_other() -> None:
    done: list[int] = []
    tokens = Tokens([secret_key(SECRET)])
    texts = [jwt.encode({"sub": f"{number}"}, SECRET, "HS256") for number in range(20)]

    async def verify(text: str) -> None:
        done.append(int((await tokens.grant(text)).sub or ""))

    beside = Beside(done)
    await asyncio.gather(*map(verify, texts))
    assert beside.most() == 1
    with pytest.raises(StopIteration):
        tokens.grant(texts[0]).send(None)


async def test_a_token_that_many_bring_at_once_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens([secret_key(SECRET)])
    decode, texts = jwt.decode, [jwt.encode({"sub": f"{number}"}, SECRET, "HS256") for number in range(2)]
    verified: list[str] = []

    def counted(text: str, *args: Any, **options: Any) -> Any:
        verified.append(text)
        return decode(text, *args, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    assert len(await asyncio.gather(*map(tokens.grant, texts * 10))) == 20
    assert verified == texts
