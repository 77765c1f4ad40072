"""Which clients take compressed streams."""

import pytest

from gateway.web.accept import accepts_gzip


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=x", False),
        ("identity", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_what_clients_say_they_take(header: str, accepted: bool) -> None:
    assert accepts_gzip([(b"host", b"x"), (b"accept-encoding", header.encode())]) is accepted
