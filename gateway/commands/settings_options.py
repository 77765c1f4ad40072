"""Command line options made from the settings, so that there is one list."""

from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from gateway.settings import Settings, SettingsError, flag, variable

AnySettings = TypeVar("AnySettings", bound=Settings)
Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(cls: type[Settings], only: Collection[str] | None = None) -> Callable[[Command], Command]:
    """Decorator: an option for each setting, or for those in `only`, named as the field."""

    def decorate(command: Command) -> Command:
        for name, field in reversed(cls.model_fields.items()):
            if only is None or name in only:
                command = _option(name, field)(command)
        return command

    return decorate


def load(cls: type[AnySettings], flags: dict[str, Any]) -> AnySettings:
    """The settings in force; a wrong one ends the command with one sentence (exit status 2)."""
    try:
        return cls.load({name: value for name, value in flags.items() if value is not None})
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def default_text(field: FieldInfo) -> str:
    """The default as it would be typed."""
    value = field.default
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def unit(field: FieldInfo) -> str:
    assert isinstance(field.json_schema_extra, dict)
    return str(field.json_schema_extra["unit"])


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    default = default_text(field)
    text = f"{field.description}  [{variable(name)}; default: {default or 'none'}]"
    if field.annotation is bool:
        return click.option(f"{flag(name)}/--no-{flag(name)[2:]}", name, default=None, help=text)
    if get_origin(field.annotation) is Literal:
        return click.option(flag(name), name, metavar="|".join(get_args(field.annotation)), default=None, help=text)
    # Values are checked by the settings themselves, so that flag and variable give the same answer.
    return click.option(flag(name), name, metavar=unit(field).upper(), default=None, help=text)
