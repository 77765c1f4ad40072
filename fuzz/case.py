"""A case: what is sent, as data, so that it can be kept in a file and played again whatever generates cases then."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

SAVED = Path(__file__).parent / "saved"
"""Cases that once failed; each is played again in every short run."""


@dataclass(frozen=True)
class Case:
    """One of a target's.

    Attributes:
        name: by which a person finds it again: its number, or its file.
        content: lists, texts, numbers and bytes; what they mean, the target knows.
    """

    name: str
    content: Any


@dataclass(frozen=True)
class Failure:
    """A case of which came what must not.

    Attributes:
        case: None if it can't be told which of several it was.
        what: came of it.
    """

    case: Case | None
    what: str


def dump(target: str, case: Case) -> str:
    """The text of a file."""
    return json.dumps({"target": target, "case": _to_json(case.content)}, indent=1) + "\n"


def save(target: str, case: Case, directory: Path) -> Path:
    """Write the case into a file, and return that."""
    directory.mkdir(parents=True, exist_ok=True)
    text = dump(target, case)
    file = directory / f"{_stem(target)}-{sha256(text.encode()).hexdigest()[:10]}.json"
    file.write_text(text)
    return file


def load(file: Path) -> tuple[str, Case]:
    """The target's name, and the case."""
    value = json.loads(file.read_text())
    return value["target"], Case(file.name, _from_json(value["case"]))


def saved(target: str) -> list[Case]:
    """The cases of a target that failed once."""
    return [load(file)[1] for file in sorted(SAVED.glob(f"{_stem(target)}-*.json"))]


def _stem(target: str) -> str:
    return target.replace(" ", "-")


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    assert value is None or isinstance(value, str | int | bool), value
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return value["bytes"].encode("latin-1")
    return [_from_json(each) for each in value] if isinstance(value, list) else value
