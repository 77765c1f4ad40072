"""Work that is too much for one turn of the event loop if many want it at once."""

import asyncio
from collections import deque


class Pace:
    """Lets one piece of work begin in each turn of the event loop, in the order in which they came.

    A hundred signatures take a dozen milliseconds, in which no event would go out to anybody. This way the loop does
    everything else in between. Who comes alone doesn't wait.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Wait for one's turn; the work begins when this returns."""
        if not self._taken:
            self._take()
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine

    def _take(self) -> None:
        self._taken = True
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._taken = False
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # else whoever waited has left
                first.set_result(None)
                self._take()
                return
