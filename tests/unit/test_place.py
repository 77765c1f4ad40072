"""Ids: what is written is read again, they stay short, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.memory.history import History
from gateway.memory.place import (
    FIRST_GENERATION,
    MAX_PLACE_BYTES,
    NOWHERE,
    Place,
    Suffix,
    ambiguous_keys,
    format_era,
    format_part,
    format_place,
    new_topics,
    parse_place,
    parse_previous,
    topic_keys,
    with_proof,
    without_proof,
)
from gateway.memory.position import Position
from gateway.memory.resume import Resume
from gateway.memory.topic import Topic
from gateway.settings import Settings
from tests.unit.model.names import Name

NEWS = Name("news", False, *topic_keys("news", False))
TWIN = Name("twin", False, NEWS.key, "twin56789012345678901x")

generations = st.integers(FIRST_GENERATION, 1 << 59)
ticks = st.integers(0, 1 << 50)
own_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@st.composite
def positions(draw: st.DrawFn) -> tuple[tuple[int, int], dict[str, Position]]:
    era = draw(generations), draw(ticks)
    names = draw(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=20))
    after = st.one_of(st.just(0), st.integers(era[1] + 1, era[1] + (1 << 40)))
    return era, {name: Position(*era, draw(after), draw(st.integers(0, 1 << 40))) for name in names}


@given(positions())
def test_every_position_comes_back(placed: tuple[tuple[int, int], dict[str, Position]]) -> None:
    era, at = placed
    topics = {name: Name(name, False, *topic_keys(name, False)) for name in at}
    assert not ambiguous_keys(topics.values())
    text = format_place(era, [(topics[name].key, position) for name, position in at.items()])
    own, place = parse_place(text)
    assert own is None
    assert place is not None
    assert {name: place.at(topic) for name, topic in topics.items()} == at
    assert place.at(NEWS) == at.get("news", Position(*era)), "a topic that isn't named is at the tick"


@given(own_ids, generations, ticks)
def test_a_publishers_id_stands_in_front(own_id: str, generation: int, tick: int) -> None:
    text = f"{own_id}~{format_era((generation, tick))}"
    assert parse_place(text) == (own_id, Place(generation, tick, {}))


def test_a_publishers_id_may_look_like_anything() -> None:
    place = format_place((FIRST_GENERATION, 7), [(NEWS.key, Position(FIRST_GENERATION, 7, 9, 2))])
    for own_id in ("17", "a~b", "~", "2.0.0~x", "1790000000000-3"):
        own, parsed = parse_place(f"{own_id}~{place}")
        assert own == own_id
        assert parsed is not None
        assert parsed.at(NEWS) == Position(FIRST_GENERATION, 7, 9, 2)
    for own_id in (
        "17",
        "2.x",
        "3.1.1",
        "~",
        "17~",
        "2.1",
        "2.1.1.",
        "2.1.1.abc:1",
        "2.1.1.abcdefgh",
        "2.1.1.abcdefgh:",
    ):
        assert parse_place(own_id) == (own_id, None)


@given(st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    own, place = parse_place(text)
    if place is None:
        assert own == text
    else:
        for each in place.since:
            assert place.at(Name("", False, each[:8], each))


@given(st.text("2.0123456789abcdefABZ_-~:", max_size=80))
def test_what_is_nearly_an_id_can_be_read(text: str) -> None:
    parse_place(text)
    parse_previous(text)


def test_without_positions() -> None:
    assert parse_place(NOWHERE) == (None, Place(0, 0, {}))


def test_topics_with_the_same_short_key_are_named_by_their_long_ones() -> None:
    era = (FIRST_GENERATION, 5)
    assert ambiguous_keys([NEWS, TWIN]) == {NEWS.key}
    assert ambiguous_keys([NEWS, NEWS._replace(key="other678")]) == frozenset()
    text = format_place(era, [(NEWS.long_key, Position(*era, 6, 1)), (TWIN.long_key, Position(*era, 0, 3))])
    _, place = parse_place(text)
    assert place is not None
    assert place.at(NEWS) == Position(*era, 6, 1)
    assert place.at(TWIN) == Position(*era, 0, 3)


def test_a_channel_and_a_pattern_of_one_name_have_different_keys() -> None:
    assert topic_keys("a*", False) != topic_keys("a*", True)
    short, long = topic_keys("ä\n" * 100, False)
    assert (len(short), len(long)) == (8, 22)
    assert long.startswith(short)


@pytest.mark.parametrize("long", [False, True])
def test_an_id_for_a_hundred_channels_and_ten_patterns_fits_a_header(long: bool) -> None:
    """Also after years: generations count quarter-microseconds, and a durable message comes every 10 µs."""
    era = (int(40e6 * 31e6 * 4) + FIRST_GENERATION, 10**11)
    names = [(f"channel {n}", False) for n in range(100)] + [(f"pattern {n}*", True) for n in range(10)]
    keys = [topic_keys(*name)[long and not place] for place, name in enumerate(names)]  # a collision is rare
    # Many in the second after a tick: the worst case in practice.
    text = format_place(era, [(key, Position(*era, era[1] + 100_000, 100_000)) for key in keys])
    assert text.isascii()
    assert len(text) < MAX_PLACE_BYTES + 350
    usual = format_place(era, [(key, Position(*era, 0, 200)) for key in keys])
    assert len(usual) < MAX_PLACE_BYTES


def test_all_versions_give_a_topic_the_same_key() -> None:
    """Clients come back to workers of another version with it."""
    assert topic_keys("news", False) == ("XtchukSj", "XtchukSjAq8N44oBwPX9Sw")
    assert topic_keys("news", True) == ("l9XSTXGa", "l9XSTXGaALaUTdPT-7AFZw")
    assert new_topics([Name("news", False, *topic_keys("news", False))]) == "Aq8N44"


def test_an_id_has_what_its_own_id_is() -> None:
    resume = Resume.parse("17~2.1.2")
    assert (resume.text, resume.own_id, resume.place, resume.previous) == ("17~2.1.2", "17", Place(1, 2, {}), None)
    previous = Resume.parse("1790000000123-7", [])
    assert (previous.place, previous.previous) == (None, (1790000000123, 7))
    assert previous.new == frozenset()


def test_a_topic_that_is_named_by_its_long_key_is_not_new() -> None:
    topic = Topic("a", False, History(Settings(), lambda: 0.0).ring())
    assert not Resume.parse(f"2.1.2.{topic.long_key}:1", [topic]).new
    assert not Resume.parse(f"2.1.2.n{'x' * 6}{new_topics([topic])}", [topic]).new
    assert Resume.parse(f"2.1.2.n{'x' * 12}", [topic]).new == {topic}
    assert Resume.parse("of its publisher's", [topic]).new == {topic}


def test_an_id_may_say_whose_stream_it_is() -> None:
    proof = "_-" + "p" * 20
    for place in ("2.1.2", "2.1.2.12345678:3", "2.0.0"):
        said = Suffix(proof=proof).on(place)
        assert said == f"{place}.s{proof}"
        plain = parse_place(place)[1]
        assert plain is not None
        assert parse_place(said) == (None, plain._replace(proof=proof))
        assert parse_place(f"17~{said}") == ("17", plain._replace(proof=proof))
    both = Suffix("abcdef", proof)
    assert parse_place(both.on("2.1.2")) == (None, Place(1, 2, {}, "abcdef", proof))
    assert parse_place(both.on(NOWHERE)) == (None, Place(0, 0, {}, "", proof))
    assert both.on_all(["2.1.2", None]) == [f"2.1.2.nabcdef.s{proof}", None]
    for text in (f"2.1.2.s{proof}x", f"2.1.2.s{proof[1:]}", f"2.1.2.s{proof}.nabcdef", f"2.1.2.s{proof}.s{proof}"):
        assert parse_place(text) == (text, None)


@pytest.mark.parametrize(
    ("had", "told", "back"),
    [
        (None, "2.0.1", None),
        ("17", "17~2.0.1", "17"),  # which is looked for among the publisher's own ids
        ("2.1.2", "2.1.2", "2.1.2.sPROOF"),
        ("17~2.1.2.12345678:3", "17~2.1.2.12345678:3", "17~2.1.2.12345678:3.sPROOF"),
        ("2.0.0", "2.0.0", "2.0.0.sPROOF"),
        (f"2.1.2.nabcdef.s{'x' * 22}", "2.1.2.nabcdef", "2.1.2.nabcdef.sPROOF"),
    ],
)
def test_who_has_no_proof_yet_can_be_told_one(had: str | None, told: str, back: str | None) -> None:
    proof = "p" * 22
    id_ = with_proof(had, proof)
    assert id_ == f"{told}.s{proof}"
    _, place = parse_place(id_)
    assert place is not None
    assert place.proof == proof
    assert without_proof(id_) == (back.replace("PROOF", proof) if back else None)
    assert without_proof("17") == "17"


def test_forms() -> None:
    era = (0xABC, 0x10)
    assert format_part("12345678", Position(*era, 0x12, 3)) == ".123456782:3"
    assert format_part("12345678", Position(*era, 0, 10)) == ".12345678:a"
    assert format_place(era, [("12345678", Position(*era)), ("abcdefgh", Position(0xABC, 0x9, 0, 1))]) == "2.abc.10"


def test_ids_of_the_previous_version() -> None:
    assert parse_previous("1790000000123-7") == (1790000000123, 7)
    assert parse_previous("1790000000123-9f3a61c2") == (1790000000123, 0), "a plain message's: only the time is known"
    for text in ("", "x", "1-2", "1790000000123-", "17~1790000000123-7", "2.0.0"):
        assert parse_previous(text) is None


def test_topics_that_were_new_are_named_or_included() -> None:
    a, b = (Topic(name, False, History(Settings(), lambda: 0.0).ring()) for name in "ab")
    said = new_topics([b])
    assert not Resume.parse(f"2.1.2.n{said}", [b]).new, "its stream has begun with it"
    assert not Resume.parse(f"2.1.2.{b.key}:1", [b]).new, "it says where it is"
    assert Resume.parse(f"2.1.2.n{said}", [a, b]).new == {a}, "another one was added since"
    assert not Resume.parse(f"2.1.2.n{new_topics([a, b])}", [a, b]).new
    assert Resume.parse(f"2.1.2.{a.key}:1", [b]).new == {b}
