"""Redis' glob patterns, exactly as Redis matches them (util.c, stringmatchlen, Redis 7).

Which pattern a PUBLISH is heard through decides what counts as its copies, so this must not differ from Redis in any
case, odd ones included: an unclosed class, a range the wrong way round, a backslash at the end.
"""

import re
from functools import lru_cache

_STAR, _ANY, _OPEN, _CLOSE, _BACKSLASH, _CARET, _DASH = b"*?[]\\^-"


@lru_cache(maxsize=10_000)
def compile_glob(pattern: bytes) -> re.Pattern[bytes]:
    """The pattern as a regular expression, for `fullmatch`."""
    segments: list[list[bytes]] = [[]]  # between the stars; each matches names of one length
    at = 0
    while at < len(pattern):
        char = pattern[at]
        parts = segments[-1]
        if char == _STAR:
            segments.append([])
            at += 1
        elif char == _ANY:
            parts.append(b".")
            at += 1
        elif char == _OPEN:
            part, at = _class(pattern, at + 1)
            parts.append(part)
        else:
            if char == _BACKSLASH and at + 1 < len(pattern):
                at += 1
            parts.append(re.escape(pattern[at : at + 1]))
            at += 1
    first, *between = [b"".join(parts) for parts in segments]
    if not between:
        return re.compile(first, re.DOTALL)
    last = between.pop()
    # Where a segment fits first is as good as anywhere later, so nothing is tried twice: with many stars, a pattern
    # would otherwise take forever (as in fnmatch.translate of Python 3.12).
    tried_once = b"".join([b"(?>.*?%b)" % segment for segment in between if segment])
    return re.compile(first + tried_once + b".*" + last, re.DOTALL)


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class that begins at `at`, behind its bracket, and where the pattern goes on."""
    negated = at < len(pattern) and pattern[at] == _CARET
    if negated:
        at += 1
    allowed: set[int] = set()
    while at < len(pattern):
        char = pattern[at]
        if char == _BACKSLASH and at + 1 < len(pattern):
            allowed.add(pattern[at + 1])
            at += 2
        elif char == _CLOSE:
            at += 1
            break
        elif at + 2 < len(pattern) and pattern[at + 1] == _DASH:
            low, high = sorted((char, pattern[at + 2]))
            allowed.update(range(low, high + 1))
            at += 3
        else:
            allowed.add(char)
            at += 1
    if negated:
        allowed = set(range(256)) - allowed
    if not allowed:
        return b"(?!)", at
    return b"[" + b"".join(b"\\x%02x" % char for char in sorted(allowed)) + b"]", at
