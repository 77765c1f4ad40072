"""The harness that counts losses must notice each kind of fault; else its zeros would mean nothing."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.account import Account, Channel, Published, reconcile
from chaos.answer import Answer, BadAnswer
from chaos.columns import COLUMNS, OWN, PATTERN, PLAIN, Feed, Listener, feeds, group, listeners
from chaos.diary import GAP as GAP_ENTRY
from chaos.diary import CountingDiary, Diary
from chaos.event_stream import EventStream
from chaos.payload import SAME, Payload, numbers
from chaos.promise import NOWHERE, SHARED, Promise
from chaos.publisher import Sequencer
from chaos.row import faults_of
from chaos.source import Source, Target
from chaos.troubles import Troubles
from testing.reference import Reference

GAP = "gap"


def account(
    received: list[int | str],
    *,
    published: int = 10,
    unheard: range = range(0),
    durable: range = range(0),
    kept: range = range(10),
    astray: range = range(0),
    calm: Literal["", "unmoved", "always"] = "",
    **client: Any,
) -> Account:
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
        "opened": 1,
        **client,
    }
    sure = [
        Published(number, number in unheard, durable=number in durable, kept=number in kept, astray=number in astray)
        for number in range(published)
    ]
    return reconcile({"news": Channel(sure, calm=calm)}, [report])


def faults(account: Account, column: str = PLAIN, promise: Promise | None = None) -> str:
    return "; ".join(faults_of({column: account}, promise or Promise()))


ALL: list[int | str] = list(range(10))
KEPT = range(10)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("durable", [range(0), KEPT, range(0, 10, 2)], ids=["plain", "durable", "mixed"])
class TestEveryColumn:
    """What never may happen, whatever a client listens to and whether or not its messages are kept."""

    def test_a_client_that_got_everything_is_no_fault(self, column: str, durable: range) -> None:
        one = account(ALL, durable=durable, calm="always")
        assert (one.lost, one.due) == (0, 10)
        assert faults(one, column) == ""

    def test_a_lost_event(self, column: str, durable: range) -> None:
        one = account([0, 1, 2, 4, 5, 6, 7, 8, 9], durable=durable)
        assert (one.lost, one.unannounced, one.unexplained + one.forgotten) == (1, 1, 1)
        assert "1 events lost without a gap event" in faults(one, column)
        what = "durable events lost that Redis kept" if 3 in durable else "plain events lost that workers could hear"
        assert f"1 {what}" in faults(one, column)

    def test_an_event_delivered_twice(self, column: str, durable: range) -> None:
        assert "1 events delivered twice" in faults(account([*ALL, 9], durable=durable), column)

    def test_events_out_of_order(self, column: str, durable: range) -> None:
        one = account([0, 1, 3, 2, 4, 5, 6, 7, 8, 9], durable=durable)
        assert "1 events out of order" in faults(one, column)

    def test_a_gap_where_nothing_broke(self, column: str, durable: range) -> None:
        one = account([*ALL[:5], GAP, *ALL[5:]], durable=durable, calm="always")
        assert (one.uncalled, one.needless, one.lost) == (1, 1, 0)
        assert "1 gap events where nothing broke" in faults(one, column)

    def test_a_gap_that_all_were_to_get(self, column: str, durable: range) -> None:
        promise = Promise(told=frozenset((column,)))
        assert "1 clients without a gap event" in faults(account(ALL, durable=durable), column, promise)
        assert faults(account([*ALL[:5], GAP, *ALL[5:]], durable=durable), column, promise) == ""

    def test_a_missing_gap(self, column: str, durable: range) -> None:
        """What nobody has any more must still be told of."""
        gone = range(3, 5)
        received: list[int | str] = [0, 1, 2, 5, 6, 7, 8, 9]
        one = account(received, durable=durable, unheard=gone, kept=range(0))
        assert (one.lost, one.unannounced, one.unexplained, one.forgotten) == (2, 2, 0, 0)
        assert "2 events lost without a gap event" in faults(one, column)
        one = account([*received[:3], GAP, *received[3:]], durable=durable, unheard=gone, kept=range(0))
        assert faults(one, column) == ""


def test_where_only_a_cut_stream_may_have_a_gap() -> None:
    received: list[int | str] = [*ALL[:5], GAP, *ALL[5:]]
    assert account(received, calm="unmoved", opened=1).uncalled == 1
    assert account(received, calm="unmoved", opened=2).uncalled == 0
    assert account(received, opened=1).uncalled == 0


def test_what_a_promise_calls_calm() -> None:
    killed = Promise(calm=SHARED, unmoved=OWN)
    assert [killed.calm_on(group(name)) for name in ("ticker", "alerts", "lobby", "team.2")] == ["always"] * 4
    assert [killed.calm_on(group(name)) for name in ("user.17", "quiet.late.3")] == ["unmoved"] * 2
    assert Promise(calm=NOWHERE).calm_on(group("ticker")) == ""


def test_a_loss_of_everything_excuses_only_what_was_published_meanwhile() -> None:
    received: list[int | str] = [0, 1, GAP, 4, 5, 6, 7, 8, 9]
    assert account(received, durable=KEPT, kept=range(4, 10)).forgotten == 0
    assert account(received, durable=KEPT, kept=range(3, 10)).forgotten == 1


def test_one_gap_event_announces_all_that_is_missing_between_what_redis_kept() -> None:
    """3, 5 and 7 are durable and came out of Redis; the plain messages among them are lost."""
    received: list[int | str] = [0, 1, 3, 5, 7, 8, 9]
    durable = range(1, 10, 2)
    announced: list[int | str] = [0, 1, GAP, 3, 5, 7, 8, 9]
    assert account(announced, durable=durable, unheard=range(2, 8)).unannounced == 0
    assert account(received, durable=durable, unheard=range(2, 8)).unannounced == 3
    # Up to 5 Redis was away. What is missing after that is another matter.
    assert account(announced, durable=durable, unheard=range(2, 5)).unannounced == 1
    # Nothing of the kind is known of plain messages: whoever has one has heard Redis again.
    assert account([0, 1, GAP, 3, 5, 6, 8, 9], durable=durable, unheard=range(2, 8)).unannounced == 1


def test_where_plain_messages_may_go_astray() -> None:
    cases: list[list[int | str]] = [[0, 1, 3, 2, 4, 5, 6, 7, 8, 9], [0, 1, 2, 2, *ALL[3:]]]
    for received in cases:
        one = account(received, astray=range(2, 3))
        assert (one.astray, one.disordered + one.duplicated, one.lost) == (1, 0, 0)
        kept = account(received, astray=range(2, 4), durable=KEPT)
        assert (kept.astray, kept.disordered + kept.duplicated) == (0, 1)
    # 4 came too early, so a gap event after it is in the place of 2 and 3; after an ordinary event it is not.
    early: list[int | str] = [0, 1, 4, GAP, 5, 6, 7, 8, 9]
    assert account(early, astray=range(2, 5)).unannounced == 0
    assert account(early, astray=range(2, 4)).unannounced == 2
    # A durable event after a plain one that came too early is not what is out of order.
    one = account([0, 1, 3, 2, 4, 5, 6, 7, 8, 9], astray=range(2, 4), durable=range(0, 10, 2))
    assert (one.astray, one.disordered) == (1, 0)


@pytest.mark.parametrize("received", [ALL[3:], ALL[:7], ALL[:2] + ALL[5:]])
def test_losses_at_the_beginning_the_end_and_between(received: list[int | str]) -> None:
    assert account(received).lost == account(received).unannounced == 3


def test_a_client_that_hears_nothing() -> None:
    one = account([])
    assert one.lost == one.unannounced == 10
    assert faults(one)
    assert faults(account([], durable=KEPT, kept=range(0)))


def test_an_event_delivered_twice() -> None:
    cases: list[list[int | str]] = [[*ALL, 9], [0, 1, 1, *ALL[2:]], [*ALL[:5], *ALL[2:]]]
    for received in cases:
        one = account(received)
        assert one.duplicated == len(received) - 10
        assert (one.lost, one.disordered) == (0, 0)
        assert "twice" in faults(one)


def test_events_out_of_order_are_neither_lost_nor_twice() -> None:
    one = account([0, 1, 3, 2, 4, 5, 6, 7, 8, 9])
    assert (one.disordered, one.lost, one.duplicated) == (1, 0, 0)
    assert "out of order" in faults(one)
    assert account([5, 6, 7, 8, 9, 0, 1, 2, 3, 4]).disordered == 5


def test_an_event_nobody_published() -> None:
    assert account([*ALL, 10]).phantom == 1
    assert "nobody published" in faults(account([*ALL, 10]))


def test_a_gap_event_announces_what_is_missing_in_its_place() -> None:
    one = account([0, 1, GAP, 4, 5, 6, 7, 8, 9], unheard=range(2, 4))
    assert (one.lost, one.unannounced, one.unexplained, one.needless) == (2, 0, 0, 0)
    assert faults(one) == ""
    durable: list[int | str] = [0, 1, GAP, 4, 5, 6, 7, 8, 9]
    assert faults(account(durable, durable=KEPT, kept=range(0))) == ""
    assert "2 durable events lost" in faults(account(durable, durable=KEPT, unheard=range(2, 4)))


def test_a_gap_event_in_another_place_announces_nothing() -> None:
    cases: list[list[int | str]] = [[0, GAP, 1, 4, 5, 6, 7, 8, 9], [0, 1, 4, GAP, 5, 6, 7, 8, 9]]
    for received in cases:
        one = account(received, unheard=range(2, 4))
        assert (one.lost, one.unannounced, one.needless) == (2, 2, 1)
        assert "without a gap event" in faults(one)


def test_an_announced_loss_of_what_workers_heard_is_still_a_fault() -> None:
    one = account([0, 1, GAP, 4, 5, 6, 7, 8, 9], unheard=range(3, 4))
    assert (one.lost, one.unannounced, one.unexplained) == (2, 0, 1)
    assert "workers could hear" in faults(one)


def test_a_missing_gap_at_the_end() -> None:
    assert account(ALL[:8]).unannounced == 2
    assert account([*ALL[:8], GAP]).unannounced == 0


def test_a_client_that_gave_up() -> None:
    one = account(ALL[:5], refusal="503 text/plain")
    assert (one.closed, one.lost) == (1, 5)
    assert "gave up" in faults(account(ALL, refusal="204 "))


def test_a_client_that_got_what_it_cannot_read() -> None:
    assert "what nobody should" in faults(account(ALL, unexpected=["gateway.gap: {}"]))


def test_one_bad_client_among_many() -> None:
    channel = Channel([Published(number) for number in range(10)])
    good, bad = [[0, 9]], [[0, 4], [6, 9]]
    reports: list[dict[str, Any]] = [
        {"diaries": {"news": runs}, "gaps": {}, "unexpected": [], "refusal": "", "silence": silence, "opened": 1}
        for runs, silence in ((good, 1.0), (bad, 3.0), (good, 2.0))
    ]
    one = reconcile({"news": channel}, reports)
    assert (one.clients, one.published, one.lost, one.silence) == (3, 10, 1, 3.0)
    assert "client 1" in one.examples[0]


def test_what_redis_never_acknowledged_may_come_or_not() -> None:
    channel = Channel([Published(0), Published(2)], unsure=frozenset((1,)))
    for runs in ([[0, 2]], [[0, 0], [2, 2]]):
        report = {"diaries": {"news": runs}, "gaps": {}, "unexpected": [], "refusal": "", "silence": 0.0, "opened": 1}
        one = reconcile({"news": channel}, [report])
        assert (one.lost, one.phantom) == (0, 0)


def test_redis_keeps_a_message_and_dies_before_it_tells_anybody() -> None:
    """It is the first in the hole, whose gap event announces what is missing behind it, too."""
    hole = [
        Published(0),
        Published(2, unheard=True),
        Published(3, unheard=True, durable=True, kept=True),
        Published(4),
    ]
    channel = Channel(hole, unsure=frozenset((1,)), unsure_durable=frozenset((1,)))
    report = {"gaps": {}, "unexpected": [], "refusal": "", "silence": 0.0, "opened": 1}
    told = report | {"diaries": {"news": [[0, 0], [GAP_ENTRY, GAP_ENTRY], [1, 1], [3, 4]]}}
    one = reconcile({"news": channel}, [told])
    assert (one.lost, one.unannounced, one.needless) == (1, 0, 0)
    untold = report | {"diaries": {"news": [[0, 1], [3, 4]]}}
    one = reconcile({"news": channel}, [untold])
    assert (one.lost, one.unannounced) == (1, 1)
    assert "it got 0-1, 3-4" in one.examples[0]


def test_messages_before_all_were_there_do_not_count() -> None:
    channel = Channel([Published(number) for number in range(10)], first=5)
    for runs in ([[0, 9]], [[3, 9]], [[5, 9]], [[0, 1], [5, 9]]):
        report = {"diaries": {"news": runs}, "gaps": {}, "unexpected": [], "refusal": "", "silence": 0.0, "opened": 1}
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


# Identical messages are counted


def counted(events: list[int | str]) -> Account:
    """A client of a channel on which every tenth message has a number; `same` stands for the others."""
    diary = CountingDiary()
    for event in events:
        if isinstance(event, int):
            diary.message(event)
        elif event == GAP:
            diary.gap()
        else:
            diary.same()
    report = {"diaries": {"same": diary.entries}, "gaps": {}, "unexpected": [], "refusal": "", "silence": 0.0}
    return reconcile({"same": Channel([Published(number) for number in range(31)])}, [report])


NINE: list[int | str] = ["same"] * 9
EVERYTHING: list[int | str] = [0, *NINE, 10, *NINE, 20, *NINE, 30]


def test_identical_messages_that_all_came() -> None:
    one = counted(EVERYTHING)
    assert (one.lost, one.duplicated, one.disordered, one.unannounced) == (0, 0, 0, 0)


@pytest.mark.parametrize("index", [3, 13, 28])
def test_an_identical_message_that_is_missing_or_came_twice(index: int) -> None:
    one = counted(EVERYTHING[:index] + EVERYTHING[index + 1 :])
    assert (one.lost, one.unannounced, one.duplicated) == (1, 1, 0)
    one = counted([*EVERYTHING[:index], "same", *EVERYTHING[index:]])
    assert (one.lost, one.duplicated, one.disordered) == (0, 1, 0)


def test_identical_messages_that_a_gap_event_announces() -> None:
    one = counted([0, "same", "same", GAP, "same", 10, *NINE, 20, *NINE, 30])
    assert (one.lost, one.unannounced, one.duplicated, one.needless) == (6, 0, 0, 0)
    one = counted([0, *NINE, "gap", 20, *NINE, 30])  # the numbered one is missing as well
    assert (one.lost, one.unannounced) == (10, 0)
    one = counted([0, *NINE, 10, GAP, *NINE, 20, *NINE[1:], 30])  # the gap is in another place
    assert (one.lost, one.unannounced, one.needless) == (1, 1, 1)


def test_a_part_that_came_again() -> None:
    one = counted([0, *NINE, 10, *NINE, 10, *NINE, 20, *NINE, 30])
    assert (one.lost, one.duplicated) == (0, 10)


# What is published, and for whom


def test_every_channel_that_somebody_listens_to_is_published_on() -> None:
    clients = {column: listeners(column, 40) for column in COLUMNS}
    asked = {name for some in clients.values() for one in some for name in (*one.channels, *one.matched)}
    published = [name for feed in feeds(clients, 20.0) for name in feed.channels]
    assert set(published) == asked
    assert len(published) == len(asked)
    own = [name for name in asked if group(name) in OWN]
    for name in own:
        assert sum(name in one.channels for some in clients.values() for one in some) == 1
    assert all(one.patterns for one in clients[PATTERN])


def test_own_channels_get_plain_and_durable_messages_in_turn() -> None:
    sequencer = Sequencer(Feed("user", ("a", "b", "c"), 1.0, plain=True, durable=True))
    assert [sequencer.next() for _ in range(6)] == [
        ("a", False), ("b", True), ("c", False), ("a", True), ("b", False), ("c", True)
    ]  # fmt: skip
    sequencer.only_plain = True
    assert not any(durable for _, durable in (sequencer.next() for _ in range(6)))


def test_what_redis_kept_is_found_whatever_is_around_it() -> None:
    entries = [(b"1-0", {b"d": b"x\n" + Payload("user.1", number, 99).encode(60)}) for number in (3, 14)]
    other = [(b"1-1", {b"d": Payload("user.11", 5, 99).encode(60)})]
    assert numbers("user.1", str([*entries, *other])) == {3, 14}


def test_troubles_are_of_a_time_and_of_some_channels() -> None:
    troubles = Troubles()
    second = 10**9
    troubles.add(10 * second, 12 * second, OWN)
    assert troubles.hit("user", 11 * second, 11 * second)
    assert troubles.hit("user", 9 * second, 10 * second)
    assert not troubles.hit("user", 8 * second, 9 * second)
    assert not troubles.hit("user", 13 * second, 14 * second)
    assert not troubles.hit("ticker", 11 * second, 11 * second)
    troubles.extend(14 * second)
    assert troubles.hit("user", 13 * second, 14 * second)


# What a client makes of what it gets


def source(*channels: str, patterns: tuple[str, ...] = (), matched: tuple[str, ...] = ()) -> Source:
    return Source("any", Target("127.0.0.1", 1, Listener(channels, patterns, matched)))


def read(client: Source, text: str) -> None:
    """As its connection would."""
    stream = EventStream("before")
    client._dispatched(stream.feed(text.encode()), stream.last_event_id, 0)


def message(channel: str, number: int) -> str:
    return f"data: {Payload(channel, number, 0).encode(40).decode()}\n\n"


@pytest.mark.parametrize(
    "block", ["event: gateway.open\ndata: {}\nid: 7\n\n", "event: gateway.closing\ndata:\nid: 7\n\n", "id: 7\n\n"]
)
def test_every_id_counts(block: str) -> None:
    client = source("news")
    read(client, block)
    assert b"Last-Event-ID: 7" in client.target.request(client._last_event_id)
    assert not client.unexpected
    assert client.greeted == ("open" in block)


def test_a_beginning_without_an_id_is_noticed() -> None:
    client = source("news")
    read(client, "id:\nevent: gateway.open\ndata: {}\n\n")
    assert client.unexpected


def test_a_gap_of_a_pattern_is_one_of_every_channel_it_matches() -> None:
    client = source("team.0", patterns=("team.*",), matched=("team.0", "team.1"))
    read(client, message("team.1", 0) + 'event: gateway.gap\ndata: {"channel": "team.*", "reason": "x"}\n\n')
    read(client, 'event: gateway.gap\ndata: {"channel": "team.0", "reason": "x"}\n\n')
    assert [len(diary.entries) for diary in client.diaries.values()] == [2, 2]
    assert client.gaps == {"x": 2}
    assert b"channel=team.0&pattern=team.%2A" in client.target.request("")


def test_an_event_of_another_channel_is_noticed() -> None:
    for text in (message("other", 1), f"data: {SAME.decode()}\n\n"):
        client = source("news")
        read(client, text)
        assert client.unexpected


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
