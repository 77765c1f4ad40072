"""Requests that nginx and a worker might take for different ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from fuzz.case import Case, Failure
from fuzz.chance import Chance
from fuzz.grammar import chunked, request
from fuzz.raw import pieces, play_all
from fuzz.stage import Stage
from fuzz.target import Target
from testing.nginx import Nginx

_SMUGGLED = "fuzz.smuggled"
_END = "fuzz.smuggle-end"
HIDDEN = b"POST /publish/" + _SMUGGLED.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
_NGINX_OWN = (501, 503, 505)
"""What nginx says of a coding or a version that it doesn't know."""
_WITHOUT_HEAD = "no response: "
"""nginx answers requests without a version as HTTP/0.9."""
_PUBLISH = "    include deploy/nginx/publish.conf;\n"
_OPEN = "location / {\n        proxy_pass http://workers;"


class ThroughNginx(Target):
    """Requests through nginx, where publishing is closed, to a worker that would publish: lengths and codings that
    contradict each other, in front of a hidden POST /publish; none of those may reach the worker.
    """

    name = "through nginx"
    share = 16

    def __init__(self, closed: bool = True) -> None:
        super().__init__()
        self._closed = closed
        self._nginx: Nginx | None = None

    def prepare(self, stage: Stage) -> None:
        directory = stage.directory / "nginx"
        directory.mkdir()
        nginx = Nginx(directory, [stage.worker.port])
        if self._closed:
            _close(directory)
        self._nginx = stage.enter(nginx)

    def make(self, chance: Chance) -> Any:
        if chance.perhaps(0.3):
            first = request(chance)
            data = first.head + first.body + HIDDEN
        else:
            data = _smuggling(chance)
        if chance.perhaps(0.2):
            data = chance.mutated(data)
        return [pieces(chance, data), 2, chance.weighted({"wait": 95, "close": 5})]

    async def play(self, stage: Stage, cases: Sequence[Case]) -> list[Failure]:
        assert self._nginx is not None
        async with Redis(port=stage.redis.port) as client, client.pubsub(ignore_subscribe_messages=True) as heard:
            await heard.psubscribe("fuzz.smuggle*")
            await heard.get_message(timeout=5)
            failures = await play_all(self._nginx.port, cases, self, errors=_NGINX_OWN)
            failures = [each for each in failures if not each.what.startswith(_WITHOUT_HEAD)]
            await client.publish(_END, "")
            reached = []
            async for message in heard.listen():
                if message["channel"] == _END.encode():
                    break
                reached.append(message)
        if reached:
            failures.append(Failure(None, f"a hidden request has reached the worker: {reached[:2]}"))
        if not self._nginx.alive:
            failures.append(Failure(None, "nginx is gone"))
        return failures


def _close(directory: Path) -> None:
    """Have nginx let nothing but streams through, as in production, but without TLS."""
    server = directory / "deploy" / "nginx" / "server.conf"
    text = server.read_text()
    assert _PUBLISH in text
    assert _OPEN in text
    server.write_text(text.replace(_PUBLISH, "").replace(_OPEN, "location / {\n        return 404;"))


def _smuggling(chance: Chance) -> bytes:
    """A request whose body ends in one place for one parser, and elsewhere for another."""
    end = chance.weighted({b"\r\n": 40, b"\n": 2, b"\r": 1})
    line = chance.one(
        [b"POST /events", b"POST /events", b"GET /events?channel=a", b"POST /healthz", b"HEAD /events?channel=a"]
    )
    version = chance.weighted({b" HTTP/1.1": 20, b" HTTP/1.0": 2, b" HTTP/1.2": 1, b"": 1})
    coding = chance.one(
        [
            b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked",
            b"Transfer-Encoding: xchunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding:\r\n chunked",
            b"X: y\nTransfer-Encoding: chunked",
            b"Transfer-Encoding\r\n: chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding: \x0bchunked",
            b"Transfer_Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            b"X: y\rTransfer-Encoding: chunked",
            b"Transfer-Encoding: CHUNKED", b'Transfer-Encoding: "chunked"',
            b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
        ]
    )  # fmt: skip
    body = b'{"channels":["a"]}'
    hidden = chunked(chance, body) + HIDDEN if chance.perhaps(0.5) else b"0\r\n\r\n" + HIDDEN
    lengths = [len(hidden), 0, 4, len(hidden) - len(HIDDEN), len(body), len(body) + len(HIDDEN)]
    length = chance.one(
        [
            b"Content-Length: %d",
            b"Content-Length: %d",
            b"Content-Length: +%d",
            b"Content-Length:%d,%d",
            b"Content-Length: 0%d",
            b"Content-Length : %d",
            b"Content_Length: %d",
            b" Content-Length: %d",
            b"Content-Length: %d\r\nContent-Length: 0",
        ]
    )
    number = chance.one(lengths)
    said = length.replace(b"%d", b"%d" % number)
    lines = [line + version, b"Host: localhost"]
    if chance.perhaps(0.8):
        lines.append(said)
    if chance.perhaps(0.7):
        lines.append(coding)
    if chance.perhaps(0.2):
        lines.append(
            chance.one(
                [
                    b"Connection: keep-alive",
                    b"Connection: close, Content-Length",
                    b"Upgrade: h2c\r\nConnection: upgrade",
                    b"Expect: 100-continue",
                ]
            )
        )
    rest = lines[2:]
    chance.shuffle(rest)
    content = hidden if chance.perhaps(0.8) else body + HIDDEN
    return end.join([*lines[:2], *rest]) + end + end + content
