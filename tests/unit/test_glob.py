"""Patterns match as Redis matches them; see tests/live/test_glob.py for the comparison with a real one."""

import pytest

from gateway.memory.glob import compile_glob

# As Redis 7 answers, util.c, stringmatchlen: pattern, what it matches, what it doesn't.
CASES = [
    (b"", [b""], [b"a"]),
    (b"*", [b"", b"a", b"a\nb", b"\xff"], []),
    (b"**a**", [b"a", b"xay"], [b"", b"x"]),
    (b"a?c", [b"abc", b"a\nc", b"a?c"], [b"ac", b"abbc"]),
    (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo", b"h[llo"]),
    (b"h[^e]llo", [b"hallo", b"h^llo"], [b"hello", b"hllo"]),
    (b"h[a-c]llo", [b"hallo", b"hcllo"], [b"hdllo", b"h-llo"]),
    (b"h[c-a]llo", [b"hallo", b"hbllo"], [b"hdllo"]),
    (b"[a-]", [b"a", b"]", b"^"], [b"b", b"-"]),
    (b"[-a]", [b"a", b"-"], [b"b"]),
    (b"[]", [], [b"", b"]", b"[]"]),
    (b"[]a]", [], [b"a]", b"]"]),
    (b"[^]", [b"a", b"]"], [b""]),
    (b"[^]a", [b"xa", b"aa"], [b"a"]),
    (b"[abc", [b"a", b"c"], [b"[", b"[abc", b"abc"]),
    (b"[^abc", [b"d", b"["], [b"a"]),
    (b"[a-", [b"a", b"-"], [b"b"]),
    (b"[a-]]", [b"a", b"]", b"^"], [b"-]", b"a]", b"-"]),
    (b"[\\]]", [b"]"], [b"\\"]),
    (b"[\\a-c]", [b"a", b"-", b"c"], [b"b", b"\\"]),
    (b"\\*", [b"*"], [b"a", b"\\*"]),
    (b"\\", [b"\\"], [b""]),
    (b"a\\", [b"a\\"], [b"a"]),
    (b"\\a", [b"a"], [b"\\a"]),
    (b"[!a]", [b"!", b"a"], [b"b"]),
    (b"a.c", [b"a.c"], [b"abc"]),
    (b"(a|b)+$^{2}", [b"(a|b)+$^{2}"], [b"a"]),
    (b"A", [b"A"], [b"a"]),
    (b"[\xfe-\xff]", [b"\xff"], [b"\xfd"]),
]


@pytest.mark.parametrize(("pattern", "matching", "others"), CASES, ids=[case[0].hex() for case in CASES])
def test_odd_cases(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    glob = compile_glob(pattern)
    assert [name for name in matching if not glob.fullmatch(name)] == []
    assert [name for name in others if glob.fullmatch(name)] == []


def test_many_stars_are_no_trouble() -> None:
    glob = compile_glob(b"a*" * 12 + b"b")
    assert not glob.fullmatch(b"a" * 60)
