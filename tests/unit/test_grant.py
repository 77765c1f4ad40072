"""What a grant allows, and what a subject can't make of it."""

import pytest

from gateway.auth.channels import Channels
from gateway.auth.errors import Unauthorized
from gateway.auth.grant import MAX_GLOBS, Grant, grant_of


def grant(claim: object, sub: str | None = None) -> Grant:
    return grant_of(claim, sub, None, None, where="The claim")


@pytest.mark.parametrize(
    ("globs", "inside", "outside"),
    [
        ([], [], ["", "news", "*"]),
        (["news"], ["news"], ["", "new", "news.", "newsx", "NEWS"]),
        (["news.*"], ["news.", "news.a", "news.a.b"], ["news", "xnews.a"]),
        (["*"], ["", "a", "a.b", "*"], []),
        (["user.[ab]"], ["user.a", "user.b"], ["user.c", "user.ab"]),
        (["a?c"], ["abc", "aéc"[:1] + "xc"], ["ac", "abbc"]),
        (["*.public"], ["a.public", ".public"], ["public", "a.public.b"]),
        ([r"50\*"], ["50*"], ["500", r"50\*"]),
        (["a", "b.*", "c?"], ["a", "b.x", "cx"], ["b", "c", "d"]),
    ],
)
def test_channels_are_named_by_globs(globs: list[str], inside: list[str], outside: list[str]) -> None:
    channels = Channels(globs)
    assert [name for name in inside + outside if channels.has(name)] == inside


@pytest.mark.parametrize(
    ("globs", "inside", "outside"),
    [
        (["news.*"], ["news.*", "news.a*", "news.?", "news.[ab]"], ["*", "new*", "n?ws.*", "news", r"news\.*"]),
        (["*"], ["*", "a*"], []),
        (["news"], ["news"], ["news*", "*"]),
        (["a?"], ["a?"], ["a", "ab", "a[b]"]),
        ([], [], ["*", "a"]),
    ],
)
def test_a_pattern_needs_all_that_it_can_match(globs: list[str], inside: list[str], outside: list[str]) -> None:
    channels = Channels(globs)
    assert [pattern for pattern in inside + outside if channels.has_all_of(pattern)] == inside


def test_a_grant_has_what_the_claim_says() -> None:
    given = grant({"subscribe": ["a"], "publish": ["b"], "presence": ["c"], "admin": True, "later": 7}, "alice")
    assert (given.sub, given.admin) == ("alice", True)
    assert (given.subscribe.globs, given.publish.globs, given.presence.globs) == (("a",), ("b",), ("c",))
    nothing = grant({})
    assert not any((nothing.subscribe, nothing.publish, nothing.presence, nothing.admin))


@pytest.mark.parametrize("sub", ["alice", "42", "a_b-c", "alice@example", "ålice", "ALICE"])
def test_the_subject_stands_in_its_globs(sub: str) -> None:
    channels = grant({"subscribe": ["user.{sub}", "user.{sub}.*"]}, sub).subscribe
    assert channels.has(f"user.{sub}")
    assert channels.has(f"user.{sub}.inbox")
    assert not channels.has("user.bob")
    assert not channels.has("user.{sub}")


@pytest.mark.parametrize("sub", [None, "", "*", "a*", "?", "[a-z]", "\\", "^", "]", "1.admin", ".", "a.b"])
def test_a_subject_cannot_widen_its_grant(sub: str | None) -> None:
    channels = grant({"subscribe": ["user.{sub}", "user.{sub}.*", "news"]}, sub).subscribe
    assert channels.globs == ("news",)


@pytest.mark.parametrize("glob", ["user.[{sub}]", "user.[^{sub}]", "[a]{sub}"])
def test_a_subject_is_no_class(glob: str) -> None:
    """`user.[a-z]` is everybody, if somebody is called a-z."""
    assert grant({"subscribe": [glob]}, "a-z").subscribe.globs == ()


def test_a_separator_counts_where_the_glob_has_it() -> None:
    """Else nobody could be called by an e-mail address."""
    channels = grant({"subscribe": ["user:{sub}", "user/{sub}", "user.{sub}"]}, "alice@example.com").subscribe
    assert channels.globs == ("user:alice@example.com", "user/alice@example.com")


@pytest.mark.parametrize(
    ("claim", "what"),
    [
        (None, "must be an object"),
        (["news"], "must be an object"),
        ("news", "must be an object"),
        ({"subscribe": "news"}, "subscribe must be an array"),
        ({"publish": ["\ud800*x"]}, "publish is not valid Unicode"),
        ({"publish": [1]}, "publish must be an array"),
        ({"presence": None}, "presence must be an array"),
        ({"admin": 1}, "admin must be true or false"),
        ({"admin": "true"}, "admin must be true or false"),
        ({"subscribe": ["a"] * MAX_GLOBS, "publish": ["b"]}, "more than"),
    ],
)
def test_a_claim_of_another_form_is_rejected(claim: object, what: str) -> None:
    with pytest.raises(Unauthorized, match=what):
        grant(claim)


def test_a_subject_that_cannot_be_text_is_rejected() -> None:
    with pytest.raises(Unauthorized, match="The subject is not valid Unicode"):
        grant({"subscribe": ["*{sub}*"]}, "\ud800")


def test_as_many_entries_as_are_allowed_are_allowed() -> None:
    assert grant({"subscribe": ["a"] * (MAX_GLOBS - 1), "publish": ["b"]}).publish.has("b")
