"""Streams whose connection ends before they do: for uvicorn that is no fault of the application."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.auth.grant import Grant
from gateway.auth.tickets import Opening
from gateway.fanout.granted import GrantedStreams
from gateway.fanout.quotas import Quotas
from gateway.server.deadlines import Deadlines
from gateway.server.protocol import GatewayProtocol
from gateway.web.guard import Permit
from gateway.web.stream_request import StreamRequest
from gateway.web.subscribe import Subscribe
from tests.unit.entrance import Entrance, idle, run
from tests.unit.transport import Transport


class _Server:
    """One connection to the endpoint, over uvicorn's protocol and ours."""

    def __init__(self, guard: Any = None, **settings: Any) -> None:
        self.entrance = entrance = Entrance(**settings)
        entrance.metrics.max_connections = 10
        subscribe = Subscribe(
            entrance.settings,
            entrance.members,
            entrance.admission,
            Quotas(0, 0.0, 0, 0.0, entrance.clock),
            GrantedStreams(entrance.settings, entrance.members, entrance.admission, entrance.clock),
            guard,
            entrance.metrics,
        )
        config = uvicorn.Config(subscribe, lifespan="off", log_config=None, ws="none")
        self.protocol = GatewayProtocol(
            config,
            ServerState(),
            {},
            deadlines=Deadlines(entrance.settings),
            metrics=entrance.metrics,
            streams=entrance.members,
        )
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    async def ask(self, headers: str = "") -> None:
        self.protocol.data_received(f"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        await idle()
        assert len(self.entrance.members) == 1


def test_who_leaves_as_the_stream_begins_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """The transport knew before anybody was told, and the log had an error for it."""

    async def play() -> None:
        server = _Server()
        await server.ask()
        server.transport.close()
        server.entrance.open("a")
        await idle()
        assert not server.protocol.tasks
        assert len(server.entrance.members) == 0
        assert server.transport.written == b""
        assert not server.transport.aborted

    run(play)
    assert not caplog.records


def test_a_portable_stream_that_is_cut_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """Each client that read too slowly was an error in the log."""

    async def play() -> None:
        server = _Server(delivery="portable")
        await server.ask()
        server.entrance.open("a")
        await idle()
        assert b"gateway.open" in server.transport.written
        (subscriber,) = server.entrance.members.all()
        server.entrance.members.drop(subscriber, "overflow")
        await idle()
        assert not server.protocol.tasks
        assert server.transport.aborted

    run(play)
    assert not [record for record in caplog.records if record.name == "uvicorn.error"]


def test_a_portable_stream_that_has_ended_cuts_nobody_elses_connection() -> None:
    async def play() -> None:
        server = _Server(delivery="portable")
        await server.ask()
        server.entrance.open("a")
        await idle()
        (subscriber,) = server.entrance.members.all()
        server.entrance.members.end(subscriber, "max_age")
        await idle()
        assert not server.protocol.tasks
        server.entrance.pass_time(3600)
        server.entrance.members.sweep()
        assert not server.transport.aborted

    run(play)


class _Desk:
    """Everybody has a ticket, whose use takes as long as the test says."""

    def __init__(self) -> None:
        self.using: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def subscriber(self, _: Any, request: StreamRequest) -> Permit:
        grant = Grant("alice", expires_at=1e12)
        return Permit(request, grant, Opening(grant, request.channels, (), "p" * 22, "", b""))

    async def use(self, _: Opening) -> None:
        await self.using


@pytest.mark.parametrize("last_event_id", ["", "2.1.2", f"17~2.1.2.s{'x' * 22}"])
def test_whoever_has_used_a_ticket_for_nothing_can_come_back(last_event_id: str) -> None:
    """The worker drains while Redis is told of the use. Without the proof the next one would answer 401."""

    async def play() -> None:
        desk = _Desk()
        server = _Server(desk)
        header = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        await server.ask(header)
        server.entrance.open("a")
        for _ in range(3):
            await idle()
            if server.entrance.asked.verifying:
                server.entrance.asked.verifying.pop().set_result(None)
        for subscriber in server.entrance.admission.drain():
            server.entrance.admission.close(subscriber, "drain", "worker_shutdown")
        desk.using.set_result(None)
        await idle()
        answer = server.transport.written.decode()
        id_ = f"{last_event_id.partition('.s')[0] or '2.0.1'}.s{'p' * 22}"
        assert answer.endswith(
            f'id: {id_}\nevent: gateway.closing\nretry: {retry(answer)}\ndata: {{"reason":"draining"}}\n\n'
        )
        assert len(server.entrance.members) == 0

    run(play)


def retry(answer: str) -> str:
    return answer.partition("retry: ")[2].partition("\n")[0]
