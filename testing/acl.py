"""What docs/security.md lets the users of a Redis do, word for word."""

import re
from collections.abc import Sequence
from typing import Any, cast

import redis

from testing.nginx import REPOSITORY
from testing.servers import RedisServer

_TEST = "test"
_SECURITY = REPOSITORY / "docs" / "security.md"


def documented(user: str) -> list[list[str]]:
    """The rules of each `ACL SETUSER` of this user there, in their order."""
    text = _SECURITY.read_text()
    return [
        block.split() for block in re.findall(rf"^    ACL SETUSER {user} (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    ]


def worker_rules(*more: str) -> list[str]:
    """A worker's rules.

    Args:
        more: words of the commands that stand there for some workers only, and are wanted, too.
    """
    base, *others = documented("worker")
    for word in more:
        (found,) = [rules for rules in others if word in rules]
        base += found
    return base


class Acl:
    """Users of a Redis that lets in nobody else, but for the test itself.

    Args:
        server: a Redis of the test's own.
        database: which one the users use.

    Attributes:
        admin: a client of the database that may do everything.
    """

    def __init__(self, server: RedisServer, database: int = 0) -> None:
        self._place = f"127.0.0.1:{server.port}/{database}"
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", _TEST, "on", ">password", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", "default", "off")
        self.admin = redis.Redis.from_url(self.url(_TEST))

    def url(self, user: str) -> str:
        return f"redis://{user}:password@{self._place}"

    def allow(self, user: str, rules: Sequence[str]) -> None:
        """Give the user these rules and no others. Its connections stay, where they break none."""
        self.command("ACL", "SETUSER", user, "reset", *rules)

    def denied(self, user: str) -> set[tuple[str, str]]:
        """What Redis has denied to it since `forget`: (command, key or channel; which)."""
        entries = cast("list[dict[str, Any]]", self.admin.acl_log())
        return {(_text(each["reason"]), _text(each["object"])) for each in entries if _text(each["username"]) == user}

    def forget(self) -> None:
        self.admin.acl_log_reset()

    def disconnect(self, user: str) -> None:
        """End all its connections."""
        self.command("CLIENT", "KILL", "USER", user)

    def command(self, *words: str) -> Any:
        """The answer to a command of Redis', without a look at it."""
        return cast("Any", self.admin).execute_command(*words)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
