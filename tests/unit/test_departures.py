"""Streams whose connection ends before they do: for uvicorn that is no fault of the application."""

from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.fanout.granted import GrantedStreams
from gateway.fanout.quotas import Quotas
from gateway.server.deadlines import Deadlines
from gateway.server.protocol import GatewayProtocol
from gateway.web.subscribe import Subscribe
from tests.unit.entrance import Entrance, idle, run
from tests.unit.transport import Transport


class _Server:
    """One connection to the endpoint, over uvicorn's protocol and ours."""

    def __init__(self, **settings: Any) -> None:
        self.entrance = entrance = Entrance(**settings)
        entrance.metrics.max_connections = 10
        subscribe = Subscribe(
            entrance.settings,
            entrance.members,
            entrance.admission,
            Quotas(0, 0.0, 0, 0.0, entrance.clock),
            GrantedStreams(entrance.settings, entrance.members, entrance.admission, entrance.clock),
            None,
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

    async def ask(self) -> None:
        self.protocol.data_received(b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n")
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
