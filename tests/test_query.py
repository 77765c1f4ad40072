"""Parameters of a query."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.problem import Problem
from gateway.web.stream_request import query_pairs

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
