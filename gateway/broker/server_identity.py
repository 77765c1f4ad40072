"""Which Redis server a connection leads to."""

import re

from redis.asyncio import Connection
from redis.exceptions import NoPermissionError, ResponseError

from gateway.memory.listening import ServerChanged

_EMBEDDED = "embedded"
"""What broker/library.lua says where there is no INFO; such a server's data ends with its process."""
_LENGTH = 16


async def identity_of(connection: Connection) -> str:
    """The server's identity, as its ticks name it; empty if this user may not ask (ACL).

    It is asked on the connection that will listen: another could lead elsewhere.

    Raises:
        ServerChanged: it is a replica.
    """
    try:
        server = await _info(connection, b"server")
        replication = await _info(connection, b"replication")
    except NoPermissionError:
        return ""
    except ResponseError:  # it doesn't know the command
        return _EMBEDDED
    if _field("role", replication) == "slave":
        raise ServerChanged("it is a replica; the gateway has to listen to the master")
    return _field("run_id", server)[:_LENGTH]


async def _info(connection: Connection, section: bytes) -> str:
    await connection.send_command("INFO", section, check_health=False)
    answer = await connection.read_response()
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _field(name: str, info: str) -> str:
    match = re.search(rf"^{name}:(\S*)", info, re.MULTILINE)
    return match[1] if match else ""
