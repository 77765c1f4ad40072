"""Which channel names and patterns there can be."""

import re

from gateway.memory.event import RESERVED_PREFIX

# C0 and C1 controls, DEL, and the two line separators of Unicode: they would garble logs and event types.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_GLOB = re.compile(r"[*?\[\]\\^]")


class BadName(ValueError):
    """A channel name or pattern that can't be; says what is wrong with it."""


class NotAllowed(BadName):
    """A pattern that could be, and that the settings don't allow."""


def check_channel(name: str, max_bytes: int) -> str:
    """Return the name.

    Raises:
        BadName: empty, too long, with control characters, or one of the gateway's own.
    """
    _check(name, max_bytes, "channel")
    return name


def check_pattern(pattern: str, max_bytes: int, allowed: tuple[str, ...]) -> str:
    """Return the pattern.

    Args:
        allowed: the setting `allowed_patterns`.

    Raises:
        BadName: as for channels.
        NotAllowed: no entry of `allowed` lets it through.
    """
    _check(pattern, max_bytes, "pattern")
    if not any(covers(entry, pattern) for entry in allowed):
        raise NotAllowed(
            f"pattern {pattern!r} is not allowed here; the setting allowed_patterns says which are "
            f"({', '.join(allowed) or 'none'})"
        )
    return pattern


def has_glob_signs(text: str) -> bool:
    """Whether anything in the text means something in a Redis glob."""
    return _GLOB.search(text) is not None


def literal_prefix(glob: str) -> str | None:
    """What a glob such as `news.*` wants names to begin with; None: it is of another form."""
    literal = glob.removesuffix("*")
    return literal if literal != glob and not has_glob_signs(literal) else None


def check_clean(name: str, kind: str = "channel") -> None:
    """Refuse a name with control characters; it could forge fields of an event, or lines of a log.

    Raises:
        BadName: it has one.
    """
    if bad := _CONTROL.search(name):
        raise BadName(f"{kind} {name!r} contains the control character U+{ord(bad[0]):04X}")


def _check(name: str, max_bytes: int, kind: str) -> None:
    if not name:
        raise BadName(f"the {kind} is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadName(f"{kind} {name!r} is not valid Unicode") from None
    if size > max_bytes:
        raise BadName(f"{kind} {name[:32]!r}… is {size} bytes long; at most {max_bytes} are allowed")
    check_clean(name, kind)
    if name.startswith(RESERVED_PREFIX):
        raise BadName(f"{kind} {name!r}: names that begin with {RESERVED_PREFIX!r} are the gateway's own")


def covers(glob: str, pattern: str) -> bool:
    """Whether a glob matches everything that a pattern can match, as far as that can be told.

    `news.*` covers whatever begins with `news.`, because no glob that begins with those characters can match more.
    For any other glob this can't be told, so it covers itself.
    """
    literal = literal_prefix(glob)
    return pattern == glob if literal is None else pattern.startswith(literal)
