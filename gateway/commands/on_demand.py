"""Commands that are imported when they are asked for."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

import click


class CommandsOnDemand(MutableMapping[str, click.Command]):
    """The commands of a `click.Group`, each imported when it is first looked up.

    What is imported stays in memory for as long as the process runs: a worker would hold fakeredis, rich and httpx,
    which only other commands use, for months. Names are listed, and proposed for a misspelt one, without an import;
    the help of the whole group imports all of them.

    Linters and types don't follow a place that is text: a wrong one is noticed when its command is called, so a test
    calls every one of them.

    Args:
        places: where each command is, by its name: `module:attribute`.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._commands: dict[str, click.Command | str] = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if isinstance(command, str):
            module, _, attribute = command.partition(":")
            command = self._commands[name] = getattr(import_module(module), attribute)
        return command

    def __contains__(self, name: object) -> bool:
        return name in self._commands  # the one that is inherited would import it

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)
