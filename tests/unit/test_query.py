"""Parameters of a query."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.memory.place import MAX_PLACE_BYTES
from gateway.settings import Settings
from gateway.web.problem import Problem
from gateway.web.stream_request import QueryRequests, StreamRequest, query_pairs

_PIECES = st.sampled_from(
    [b"channel", b"=", b"&", b";", b"+", b"%", b"%41", b"%c3%a9", b"%ff", b"\xc3\xa9", b"\xff", b"a"]
)


@given(st.lists(_PIECES, max_size=12).map(b"".join) | st.binary(max_size=40))
def test_pairs_are_those_of_the_standard_library(query: bytes) -> None:
    try:
        expected = parse_qsl(query.decode(), keep_blank_values=True, errors="strict") if query else []
    except UnicodeDecodeError:
        with pytest.raises(Problem, match="not UTF-8"):
            query_pairs(query)
    else:
        assert query_pairs(query) == expected


@pytest.mark.parametrize("field", [b"channel=a", b"channel=%61"])
def test_there_may_be_no_more_than_20_000(field: bytes) -> None:
    assert len(query_pairs(b"&".join([field] * 20_000))) == 20_000
    with pytest.raises(Problem, match="more than 20000 parameters"):
        query_pairs(b"&".join([field] * 20_001))


_ID_LIMIT = 8 + MAX_PLACE_BYTES


def test_a_query_seen_before_makes_the_same_request_but_for_the_id() -> None:
    requests = QueryRequests(Settings(max_id_bytes=8))
    for _ in range(2):
        assert requests.get(b"channel=a&channel=b", None, []) == StreamRequest(
            ("a", "b"), (), frozenset(), None, 0, False
        )
        with_id = requests.get(b"channel=a&channel=b", None, [(b"last-event-id", b"7")])
        assert (with_id.channels, with_id.last_event_id) == (("a", "b"), "7")
        assert requests.get(b"channel=a&last_event_id=5", None, []).last_event_id == "5"
        assert requests.get(b"channel=a&last_event_id=5", None, [(b"last-event-id", b"6")]).last_event_id == "6"
        assert requests.get(b"channel=a&last_event_id=5", None, [(b"last-event-id", b"")]).last_event_id is None
        assert requests.get(b"channel=a", "b", []).channels == ("b", "a")
        longest = requests.get(b"channel=a", None, [(b"last-event-id", b"1" * _ID_LIMIT)])
        assert longest.last_event_id == "1" * _ID_LIMIT
        for query, headers in (
            (b"channel=a", [(b"last-event-id", b"1" * (_ID_LIMIT + 1))]),
            (b"channel=a&last_event_id=" + b"1" * (_ID_LIMIT + 1), []),
            (b"channel=gateway.x", []),
        ):
            with pytest.raises(Problem):
                requests.get(query, None, headers)


@pytest.mark.parametrize("query", [b"channel=a", b"channel=a&last_event_id=", b"channel=a&lastEventId=x"])
def test_an_empty_id_is_none(query: bytes) -> None:
    queries = QueryRequests(Settings())
    for _ in range(2):
        assert queries.get(query, None, [(b"last-event-id", b"")]).last_event_id is None
    assert queries.get(query, None, []).last_event_id == ("x" if b"x" in query else None)
    assert queries.get(query, None, [(b"last-event-id", b"newer")]).last_event_id == "newer"


def test_only_so_many_queries_are_remembered() -> None:
    requests = QueryRequests(Settings())
    for number in range(1000):
        requests.get(b"channel=%d" % number, None, [])
        requests.get(b"channel=" + b"a" * 200 + b"&channel=%d" % number + b"&channel=b" * 100, None, [])
    assert len(requests._remembered) <= 256
    assert max(map(len, requests._remembered)) <= 512
