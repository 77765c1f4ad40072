"""The harness that counts losses must notice each kind of fault; else its zeros would mean nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.account import Account, Channel, Published, reconcile
from chaos.answer import Answer, BadAnswer
from chaos.diary import Diary
from chaos.event_stream import EventStream
from chaos.row import faults_of
from testing.reference import Reference

GAP = "gap"


def account(received: list[int | str], *, published: int = 10, unheard: range = range(0), **client: Any) -> Account:
    """One client's account, given what it received in order; `published` messages count from 0."""
    diary = Diary()
    for entry in received:
        if isinstance(entry, int):
            diary.message(entry)
        else:
            diary.gap()
    report = {
        "diaries": {"news": diary.entries},
        "gaps": {"trimmed": received.count(GAP)} if GAP in received else {},
        "unexpected": [],
        "refusal": "",
        "silence": 0.0,
        **client,
    }
    sure = [Published(number, number in unheard) for number in range(published)]
    return reconcile({"news": Channel(sure)}, [report])


def faults(account: Account, column: str, *, keeps: bool = True) -> str:
    return "; ".join(faults_of({column: account}, keeps))


ALL: list[int | str] = list(range(10))


def test_a_client_that_got_everything_is_no_fault() -> None:
    assert account(ALL).lost == 0
    assert faults(account(ALL), "plain") == faults(account(ALL), "durable") == ""


def test_a_lost_event() -> None:
    one = account([0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert (one.lost, one.unannounced, one.unexplained) == (1, 1, 1)
    assert "1 events lost" in faults(one, "durable")
    assert "1 events lost that workers could hear" in faults(one, "plain")


@pytest.mark.parametrize("received", [ALL[3:], ALL[:7], ALL[:2] + ALL[5:]])
def test_losses_at_the_beginning_the_end_and_between(received: list[int | str]) -> None:
    assert account(received).lost == account(received).unannounced == 3


def test_a_client_that_hears_nothing() -> None:
    one = account([])
    assert one.lost == one.unannounced == 10
    assert faults(one, "plain")
    assert faults(one, "durable", keeps=False)


def test_an_event_delivered_twice() -> None:
    cases: list[list[int | str]] = [[*ALL, 9], [0, 1, 1, *ALL[2:]], [*ALL[:5], *ALL[2:]]]
    for received in cases:
        one = account(received)
        assert one.duplicated == len(received) - 10
        assert (one.lost, one.disordered) == (0, 0)
        assert "twice" in faults(one, "plain")


def test_events_out_of_order_are_neither_lost_nor_twice() -> None:
    one = account([0, 1, 3, 2, 4, 5, 6, 7, 8, 9])
    assert (one.disordered, one.lost, one.duplicated) == (1, 0, 0)
    assert "out of order" in faults(one, "durable")
    assert account([5, 6, 7, 8, 9, 0, 1, 2, 3, 4]).disordered == 5


def test_an_event_nobody_published() -> None:
    assert account([*ALL, 10]).phantom == 1
    assert "nobody published" in faults(account([*ALL, 10]), "plain")


def test_a_gap_event_announces_what_is_missing_in_its_place() -> None:
    one = account([0, 1, GAP, 4, 5, 6, 7, 8, 9], unheard=range(2, 4))
    assert (one.lost, one.unannounced, one.unexplained, one.needless) == (2, 0, 0, 0)
    assert faults(one, "plain") == ""
    assert faults(one, "durable", keeps=False) == ""
    assert "events lost" in faults(one, "durable")


def test_a_gap_event_in_another_place_announces_nothing() -> None:
    cases: list[list[int | str]] = [[0, GAP, 1, 4, 5, 6, 7, 8, 9], [0, 1, 4, GAP, 5, 6, 7, 8, 9]]
    for received in cases:
        one = account(received, unheard=range(2, 4))
        assert (one.lost, one.unannounced, one.needless) == (2, 2, 1)
        assert "without a gap event" in faults(one, "plain")


def test_an_announced_loss_of_what_workers_heard_is_still_a_fault() -> None:
    one = account([0, 1, GAP, 4, 5, 6, 7, 8, 9], unheard=range(3, 4))
    assert (one.lost, one.unannounced, one.unexplained) == (2, 0, 1)
    assert "workers could hear" in faults(one, "plain")


def test_a_missing_gap_at_the_end() -> None:
    assert account(ALL[:8]).unannounced == 2
    assert account([*ALL[:8], GAP]).unannounced == 0


def test_a_client_that_gave_up() -> None:
    one = account(ALL[:5], refusal="503 text/plain")
    assert (one.closed, one.lost) == (1, 5)
    assert "gave up" in faults(account(ALL, refusal="204 "), "plain")


def test_a_client_that_got_what_it_cannot_read() -> None:
    assert "what nobody should" in faults(account(ALL, unexpected=["gateway.gap: {}"]), "durable")


def test_one_bad_client_among_many() -> None:
    channel = Channel([Published(number) for number in range(10)])
    good, bad = [[0, 9]], [[0, 4], [6, 9]]
    reports: list[dict[str, Any]] = [
        {"diaries": {"news": runs}, "gaps": {}, "unexpected": [], "refusal": "", "silence": silence}
        for runs, silence in ((good, 1.0), (bad, 3.0), (good, 2.0))
    ]
    one = reconcile({"news": channel}, reports)
    assert (one.clients, one.published, one.lost, one.silence) == (3, 10, 1, 3.0)
    assert "client 1" in one.examples[0]


def test_what_redis_never_acknowledged_may_come_or_not() -> None:
    channel = Channel([Published(0), Published(2)], unsure=frozenset((1,)))
    for runs in ([[0, 2]], [[0, 0], [2, 2]]):
        report = {"diaries": {"news": runs}, "gaps": {}, "unexpected": [], "refusal": "", "silence": 0.0}
        one = reconcile({"news": channel}, [report])
        assert (one.lost, one.phantom) == (0, 0)


def test_messages_before_all_were_there_do_not_count() -> None:
    channel = Channel([Published(number) for number in range(10)], first=5)
    for runs in ([[0, 9]], [[3, 9]], [[5, 9]], [[0, 1], [5, 9]]):
        report = {"diaries": {"news": runs}, "gaps": {}, "unexpected": [], "refusal": "", "silence": 0.0}
        one = reconcile({"news": channel}, [report])
        assert (one.lost, one.duplicated, one.disordered, one.phantom) == (0, 0, 0, 0)


@given(st.lists(st.integers(0, 9) | st.just(GAP), max_size=30))
def test_counting_runs_is_counting_numbers(received: list[int | str]) -> None:
    """The account works on runs; here the same is counted number by number."""
    seen: set[int] = set()
    twice = late = 0
    for number in received:
        if isinstance(number, int):
            twice += number in seen
            late += number not in seen and number < max(seen, default=-1)
            seen.add(number)
    one = account(received)
    assert (one.lost, one.duplicated, one.disordered) == (10 - len(seen), twice, late)


# The clients read as browsers do

_LINES = st.sampled_from(
    ["data: a", "data:", "data", "data:  b", "id: 7", "id", "id: \0", "event: goal", "event:", "retry: 50",
     "retry: x", ": comment", "other: x", "", "", "\ufeffdata: x"]
)  # fmt: skip
_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(st.lists(st.tuples(_LINES, _ENDS), max_size=25), st.lists(st.integers(1, 7), min_size=1))
def test_the_clients_read_streams_as_the_standard_says(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    # A CR at the very end is only known to be a line's end when the next byte comes.
    text = "".join(line + end for line, end in lines) + ":\n"
    body = text.encode()
    stream, events, position = EventStream(), [], 0
    for index in range(len(body)):
        size = cuts[index % len(cuts)]
        events += stream.feed(body[position : position + size])
        position += size
    expected = Reference(body)
    assert [(event.type, event.data) for event in events] == [(event.type, event.data) for event in expected.events]
    assert stream.last_event_id == expected.last_event_id
    assert (None if stream.retry is None else round(stream.retry * 1000)) == expected.retry


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("raw", "body", "ended"),
    [
        (
            _HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            b"abc0123456789",
            True,
        ),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc", False),
        (_HEAD + b"Content-Length: 4\r\n\r\nabcd", b"abcd", True),
        (_HEAD + b"Content-Length: 5\r\n\r\nabcd", b"abcd", False),
        (_HEAD + b"\r\nabcd", b"abcd", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    ],
)
def test_an_end_and_a_lost_connection_are_told_apart(raw: bytes, body: bytes, ended: bool, size: int) -> None:
    answer = Answer()
    assert b"".join(answer.feed(raw[start : start + size]) for start in range(0, len(raw), size)) == body
    assert answer.ended == ended


def test_what_is_no_http() -> None:
    for raw in (b"SSH-2.0-OpenSSH\r\n\r\n", _CHUNKED + b"xyz\r\n"):
        with pytest.raises(BadAnswer):
            Answer().feed(raw)
