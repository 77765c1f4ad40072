"""Which channels and patterns there can be, and which patterns the settings allow."""

import pytest

from gateway.memory.names import BadName, NotAllowed, check_channel, check_clean, check_pattern


@pytest.mark.parametrize("name", ["news", "x" * 20, "ä" * 10, "a b", "gateway", "a.gateway.b", "n*"])
def test_channels(name: str) -> None:
    assert check_channel(name, 20) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "channel is empty"),
        ("x" * 21, "21 bytes long; at most 20"),
        ("ä" * 11, "22 bytes long"),
        ("a\ud800", "not valid Unicode"),
        ("gateway.tick", "the gateway's own"),
        ("a\nb", r"channel .* U\+000A"),
    ],
)
def test_what_is_no_channel(name: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        check_channel(name, 20)


@pytest.mark.parametrize("control", ["\0", "\x1f", "\x7f", "\x9f", "\u2028", "\u2029"])
def test_control_characters_are_in_no_name(control: str) -> None:
    with pytest.raises(BadName, match=f"channel .* U\\+{ord(control):04X}$"):
        check_clean(f"a{control}")
    with pytest.raises(BadName, match=r"^pattern "):
        check_pattern(f"a{control}*", 20, ("a*",))
    check_clean("a b\u00a0ä")


@pytest.mark.parametrize(
    ("allowed", "pattern"),
    [
        ("*", "anything[a-z]?"),
        ("news.*", "news.*"),
        ("news.*", "news.[a-c]*"),
        ("news.*", "news."),
        ("news.?", "news.?"),
        ("news.?*", "news.?*"),
        ("news", "news"),
    ],
)
def test_what_an_entry_lets_through(allowed: str, pattern: str) -> None:
    assert check_pattern(pattern, 20, ("other", allowed)) == pattern


@pytest.mark.parametrize(
    ("allowed", "pattern"),
    [
        ("news.*", "new*"),
        ("news.*", "news*"),
        ("news.?*", "news.ab*"),
        ("news.[ab]*", "news.a"),
        ("news.?", "news.a"),
        ("news", "news*"),
        ("news**", "news.a*"),
        ("news\\\\*", "news.a*"),
    ],
)
def test_what_it_does_not(allowed: str, pattern: str) -> None:
    """Whether a pattern matches no more than another can be told only if the other is a beginning."""
    with pytest.raises(NotAllowed, match="allowed_patterns"):
        check_pattern(pattern, 20, (allowed,))


def test_nothing_is_allowed_without_an_entry() -> None:
    with pytest.raises(NotAllowed, match="none"):
        check_pattern("a*", 20, ())
    with pytest.raises(BadName, match="at most 2 are"):
        check_pattern("a*b", 2, ("*",))
    with pytest.raises(BadName, match="pattern is empty"):
        check_pattern("", 2, ("*",))
