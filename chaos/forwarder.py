"""A TCP forwarder whose target can be switched: `python -m chaos.forwarder`.

Stands for a name or a virtual address that moves to another Redis.
"""

import asyncio
import contextlib

import uvloop

from chaos.orders import orders, tell


class Forwarder:
    """Listens on a port, and passes bytes on to another."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def aim(self, target: int, cut: bool) -> None:
        """Pass on to another port from now on.

        Args:
            cut: whoever is connected is cut off; otherwise only new connections go there.
        """
        self._target = target
        if cut:
            for writer in self._writers:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        # Half of the connection is not worth more than none, to either side.
    writer.transport.abort()


async def main() -> None:
    forwarder: Forwarder | None = None
    async for order in orders():
        if order["do"] == "aim" and forwarder is not None:
            forwarder.aim(order["target"], order["cut"])
            tell("aimed")
        elif order["do"] == "listen":
            forwarder = Forwarder(order["target"])
            server = await asyncio.start_server(forwarder.serve, "127.0.0.1", order["port"])
            tell("listening", port=server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    uvloop.run(main())
