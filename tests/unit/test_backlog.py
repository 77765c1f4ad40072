"""A queue that is full gives up only what may be given up."""

from gateway.fanout.backlog import Backlog, QueueLimits
from gateway.fanout.encodings import Encodings

ENCODING = Encodings(0).get(chunked=False, named=False)


def test_a_full_queue_gives_up_only_what_may_be_given_up() -> None:
    backlog = Backlog(QueueLimits(3, 1000), 0.0)
    for name in "abc":
        assert backlog.add(name.encode(), 1, "orders", "disconnect")
    assert not backlog.add(b"p", 1, "prices", "drop-oldest"), "orders must not be dropped for prices"
    assert backlog.take(ENCODING) == b"abc"


def test_of_each_ticker_only_the_newest_waits_in_its_place_and_the_rest_is_kept() -> None:
    backlog = Backlog(QueueLimits(4, 1000), 0.0)
    for piece, channel, policy in (
        (b"1", "euro", "latest"), (b"o", "orders", "disconnect"), (b"2", "yen", "latest"), (b"3", "euro", "latest"),
        (b"4", "yen", "latest"), (b"5", "yen", "latest"),
    ):  # fmt: skip
        assert backlog.add(piece, 1, channel, policy)  # type: ignore[arg-type]
    assert (backlog.events, backlog.bytes, backlog.dropped) == (3, 3, 0)
    assert backlog.add(b"6", 1, "won", "latest")
    assert backlog.add(b"7", 1, "zloty", "latest"), "a full queue gives up its oldest ticker"
    assert backlog.add(b"8", 1, "euro", "latest"), "and that one comes again"
    taken = backlog.take(ENCODING)
    assert taken.endswith(b"o678")
    assert b'"channel":"euro"' in taken
    assert b'"channel":"yen"' in taken
