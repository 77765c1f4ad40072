"""What a client that comes back is sent, in which order, and with which ids."""

from collections.abc import Iterable, Iterator

import orjson

from gateway.memory.catch_up import CatchUp, Find, Older, Verify, Wish
from gateway.memory.entry import Entry, Kept
from gateway.memory.event import Event
from gateway.memory.history import History
from gateway.memory.hole import LOST, UNKNOWN, Hole
from gateway.memory.listening import Listening
from gateway.memory.merge import Known
from gateway.memory.place import FIRST_GENERATION, NOWHERE, format_place, parse_place
from gateway.memory.position import Position
from gateway.memory.replay import Limits, Replay, Replayed, merge_topics
from gateway.memory.tick import Tick
from gateway.memory.topic import State, Topic
from gateway.settings import Settings

G = FIRST_GENERATION
LIMITS = Limits(1000, 1_000_000)
HISTORY = History(Settings(), lambda: 0.0)


def topic(name: str) -> Topic:
    return Topic(name, "*" in name, HISTORY.ring())


def at(tick: int, durable: int = 0, count: int = 0) -> Position:
    return Position(G, tick, durable, count)


def entry(channel: str, position: Position, own_id: str | None = None, size: int = 1) -> Entry:
    return Entry(position, channel, Event(b"x" * size, own_id=own_id))


def reasons(sent: list[Replayed]) -> list[str]:
    return [orjson.loads(each.event.data)["reason"] for each in sent if each.event.type == "gateway.gap"]


def ids(sent: Iterable[Replayed]) -> list[str | None]:
    return [each.id for each in sent]


def test_replays_are_merged_along_the_ticks() -> None:
    a, b = topic("a"), topic("b")
    first, second, third = entry("a", at(1, 0, 1)), entry("b", at(1, 2)), entry("a", at(3, 0, 1))
    missed: dict[Topic, list[Kept]] = {b: [second], a: [third, first]}
    assert merge_topics(LIMITS, (a, b), (a, b), missed) == ([(a, first), (b, second), (a, third)], [])


def test_an_event_of_two_topics_is_sent_once() -> None:
    a, pattern, new = topic("a1"), topic("a*"), topic("*1")
    through: dict[Topic, list[Kept]] = {
        a: [entry("a1", at(1, 0, 1))],
        pattern: [entry("a2", at(1, 0, 2)), entry("a1", at(1, 0, 1))],
    }
    merged, _ = merge_topics(LIMITS, (a, pattern), (a, pattern), through)
    assert [(by.name, each.channel) for by, each in merged if isinstance(each, Entry)] == [("a*", "a1"), ("a*", "a2")]
    through[new] = [entry("a1", at(1, 0, 1))]
    merged, _ = merge_topics(LIMITS, (a, pattern, new), (a, pattern), through)
    assert [by.name for by, _ in merged] == ["a*", "a*"], (
        "what the client has just added delivers nothing from before"
    )


def test_ids_name_all_topics_that_had_a_message_since_the_tick() -> None:
    a, b = topic("a"), topic("b")
    merged: list[tuple[Topic, Kept]] = [
        (a, entry("a", at(5, 0, 2))),
        (b, entry("b", at(5, 7))),
        (b, entry("b", at(8, 0, 1), own_id="17")),
    ]
    sent = list(Replay((a, b), {a: at(5, 0, 1), b: at(5)}, {}, merged, None))
    assert ids(sent) == [
        format_place((G, 5), [(a.key, at(5, 0, 2))]),
        format_place((G, 5), [(a.key, at(5, 0, 2)), (b.key, at(5, 7))]),
        "17~" + format_place((G, 8), [(b.key, at(8, 0, 1))]),
    ]


def test_a_publishers_id_is_the_whole_id_on_one_channel_only() -> None:
    channel, pattern = topic("a"), topic("a*")
    event = entry("a", at(5, 0, 1), own_id="17")
    assert ids(Replay((channel,), {channel: at(5)}, {}, [(channel, event)], None)) == ["17"]
    (id_,) = ids(Replay((pattern,), {pattern: at(5)}, {}, [(pattern, event)], None))
    assert id_ is not None
    own, place = parse_place(id_)
    assert own == "17"
    assert place is not None
    assert place.at(pattern) == at(5, 0, 1)


def test_durable_events_from_before_the_first_tick_have_a_place() -> None:
    channel = topic("a")
    sent = list(Replay((channel,), {channel: at(0)}, {}, [(channel, entry("a", at(0, 3)))], None))
    _, place = parse_place(sent[0].id or "")
    assert place is not None
    assert place.at(channel) == at(0, 3)
    old = Entry(Position(1790000000123, 0, 7), "a", Event(b""))
    assert ids(Replay((channel,), {}, {}, [(channel, old)], None)) == ["1790000000123-7"], "of the previous version"


def test_a_gap_stands_where_something_is_missing_and_has_no_id() -> None:
    a, b = topic("a"), topic("b")
    merged: list[tuple[Topic, Kept]] = [
        (a, entry("a", at(1, 0, 1))),
        (a, Hole(at(1, 0, 1), at(2), "not_kept")),
        (a, Hole(at(2), at(3), "not_kept")),
        (b, Hole(at(2), at(3), "not_kept")),
        (a, entry("a", at(2, 9))),
        (a, Hole(at(2, 9), at(3), "not_kept")),
    ]
    sent = list(Replay((a, b), {a: at(1), b: at(1)}, {b: "too_many"}, merged, "before"))
    assert [(each.channel, each.event.type or "message") for each in sent] == [
        ("b", "gateway.gap"),
        ("a", "message"),
        ("a", "gateway.gap"),
        ("b", "gateway.gap"),
        ("a", "message"),
        ("a", "gateway.gap"),
    ]
    assert [each.id is None for each in sent] == [True, False, True, True, False, True]
    since = [orjson.loads(each.event.data)["since"] for each in sent if each.id is None]
    assert since == ["before", sent[1].id, sent[1].id, sent[4].id]


def test_the_newest_within_the_limits() -> None:
    a, b = topic("a"), topic("b")
    first, *others = [entry(name, at(1, 0, n), size=10) for n, name in enumerate("abb", 1)]
    merged: list[tuple[Topic, Kept]] = [(a, first), *[(b, each) for each in others]]

    def within(limits: Limits, *before: Kept) -> tuple[list[tuple[Topic, Kept]], list[Topic]]:
        return merge_topics(limits, (a, b), (a, b), {a: [*before, first], b: reversed(others)})

    assert within(LIMITS) == (merged, [])
    assert within(Limits(2, 100)) == (merged[1:], [a])
    assert within(Limits(100, 25)) == (merged[1:], [a])
    assert within(Limits(1, 100)) == (merged[2:], [a, b])
    assert within(Limits(100, 1)) == (merged[2:], [a, b]), "one event always fits"
    hole = Hole(at(1, 0, 1), at(1, 0, 2), "not_kept")
    assert within(Limits(2, 100), hole) == ([(a, hole), *merged[1:]], [a])


def test_what_is_not_sent_is_hardly_looked_at() -> None:
    topics = tuple([topic(name) for name in "abc"])
    looked_at: list[Entry] = []

    def newest_first(name: str) -> Iterator[Kept]:
        for tick in range(1000, 0, -1):
            looked_at.append(entry(name, at(tick, 0, 1)))
            yield looked_at[-1]

    merged, cut = merge_topics(Limits(10, 1000), topics, topics, {each: newest_first(each.name) for each in topics})
    assert [each.position.tick for _, each in merged] == [997, *[998] * 3, *[999] * 3, *[1000] * 3]
    assert cut == list(topics)
    assert len(looked_at) <= 10 + len(topics)


class Worker:
    """One that has heard a tick and nothing else, with open topics."""

    def __init__(self, *names: str, tick: int = 10, history_events: int = 1000) -> None:
        self.history = History(Settings(history_events=history_events), lambda: 0.0)
        self.listening = Listening(self.history)
        self.topics = tuple([Topic(name, "*" in name, self.history.ring()) for name in names])
        self.connect(tick)

    def connect(self, tick: int, generation: int = G) -> None:
        self.listening.connect("server")
        for each in self.topics:
            key = each.is_pattern, each.name.encode()
            self.listening.want(key, each)
            self.listening.subscribed(key, True)
        self.listening.tick(Tick(generation, tick, "server", {}))

    def hear(self, topic: Topic, own_id: str | None = None) -> None:
        position = self.listening.count(topic, 0)
        assert position is not None
        self.history.append(topic.ring, entry(topic.name, position, own_id))


def test_a_client_that_missed_nothing() -> None:
    worker = Worker("a")
    worker.hear(worker.topics[0])
    state = CatchUp(worker.topics, Wish(worker.listening.id_of(worker.topics)))
    assert state.attempt(worker.listening, LIMITS) == []


def test_a_client_that_is_ahead_waits_and_then_history_is_lost() -> None:
    worker = Worker("a")
    for id_ in (format_place((G, 12), []), format_place((G, 10), [(worker.topics[0].key, at(10, 0, 1))]), "2.5.5"):
        state = CatchUp(worker.topics, Wish(id_))
        assert isinstance(state.attempt(worker.listening, LIMITS), Verify)
        state.verified = True
        sent = state.attempt(worker.listening, LIMITS)
        assert isinstance(sent, list)
        assert reasons(sent) == ["history_lost"]


def test_what_was_found_on_another_connection_is_forgotten() -> None:
    """While the topics opened again, the history may have become another."""
    worker = Worker("a")
    state = CatchUp(worker.topics, Wish(format_place((G, 5), [])))
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Find)
    ((topic, hole),) = need.holes
    state.found[topic] = [Known(hole.position, hole.end, [])]
    state.verified = True
    assert state.attempt(worker.listening, LIMITS) == []
    worker.listening.lose()
    worker.connect(10)
    assert isinstance(state.attempt(worker.listening, LIMITS), Find)
    assert not state.verified


def test_more_comes_than_the_ring_holds_while_others_are_asked() -> None:
    """Else each answer would come too late, until the rest is given up, with what Redis keeps of it."""
    worker = Worker("a", history_events=2)
    (a,) = worker.topics
    state = CatchUp(worker.topics, Wish(format_place((G, 5), [])))
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Find)
    assert need.holes == [(a, Hole(at(5), at(10), UNKNOWN))]
    heard = [entry("a", at(10, 0, count)) for count in range(1, 9)]
    for _ in range(4):
        worker.hear(a)
    state.found[a] = [Known(at(5), at(10), [])]
    state.tries = 1
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Find)
    assert need.holes == [(a, Hole(at(10), at(10, 0, 4), UNKNOWN))], "not only what is missing now"
    worker.hear(a)
    state.found[a].append(Known(at(10), at(10, 0, 4), heard[:4]))
    state.tries = 2
    sent = state.attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert ids(sent) == [format_place((G, 10), [(a.key, each.position)]) for each in heard[:5]]


def test_new_topics_begin_behind_the_tick_of_the_id() -> None:
    worker = Worker("a", "b")
    a, b = worker.topics
    worker.hear(a)
    worker.hear(b)
    wish = Wish(format_place((G, 10), []), new=frozenset(["b"]))
    assert isinstance(CatchUp(worker.topics, wish).attempt(worker.listening, LIMITS), Verify)
    worker.listening.tick(Tick(G, 11, "server", {}))
    sent = CatchUp(worker.topics, wish).attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert [each.channel for each in sent] == ["a"]


def test_an_id_without_a_position_gets_a_gap() -> None:
    worker = Worker("a")
    sent = CatchUp(worker.topics, Wish(NOWHERE)).attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert reasons(sent) == ["uncounted"]


def test_a_publishers_id_is_looked_for_in_all_holes() -> None:
    worker = Worker("a")
    (a,) = worker.topics
    worker.hear(a, "16")
    worker.hear(a, "17")
    worker.hear(a, "18")
    sent = CatchUp(worker.topics, Wish("17")).attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert ids(sent) == ["18"]
    worker.listening.lose()
    worker.connect(20)
    state = CatchUp(worker.topics, Wish("19"))
    assert isinstance(state.attempt(worker.listening, LIMITS), Verify)
    state.verified = True
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Find)
    assert [hole.end for _, hole in need.holes] == [at(10), at(20)], (
        "before the ring, and while the connection was lost"
    )
    nineteen = entry("a", at(12, 0, 1), "19")
    state.found[a] = [Known(hole.position, hole.end, []) for _, hole in need.holes[:1]]
    state.found[a].append(Known(need.holes[1][1].position, at(20), [nineteen, entry("a", at(12, 0, 2), "20")]))
    sent = state.attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert ids(sent) == ["20"]


def test_an_id_found_twice_says_nothing() -> None:
    worker = Worker("a")
    worker.hear(worker.topics[0], "17")
    worker.hear(worker.topics[0], "17")
    sent = CatchUp(worker.topics, Wish("17")).attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert reasons(sent) == ["unknown_id"]


def text_of(sent: list[Replayed] | object) -> list[tuple[str, str]]:
    """Channel, and data or the reason of a gap."""
    assert isinstance(sent, list)
    return [
        (each.channel, orjson.loads(each.event.data)["reason"] if each.id is None else each.event.data.decode())
        for each in sent
    ]


def since(sent: list[Replayed] | object) -> list[str | None]:
    assert isinstance(sent, list)
    return [orjson.loads(each.event.data)["since"] for each in sent if each.id is None]


def test_what_is_cut_off_is_told_once_for_each_topic() -> None:
    worker = Worker("a", "b")
    for each in worker.topics * 3:
        worker.hear(each)
    id_ = format_place((G, 10), [])
    sent = CatchUp(worker.topics, Wish(id_)).attempt(worker.listening, Limits(2, 1000))
    assert text_of(sent) == [("a", "too_many"), ("b", "too_many"), ("b", "x"), ("b", "x")]
    assert since(sent) == [id_, id_]


def test_a_publishers_id_while_redis_refuses_to_count() -> None:
    worker = Worker("a")
    worker.listening.connect("server")
    worker.listening.subscribed((False, b"a"), True)
    for each in worker.topics:
        each.state = State.UNCOUNTED
    sent = CatchUp(worker.topics, Wish("17")).attempt(worker.listening, LIMITS)
    assert text_of(sent) == [("a", "uncounted")]
    assert since(sent) == ["17"]


def test_a_publishers_id_on_another_stream_than_of_one_channel_says_nothing() -> None:
    for names in (["a*"], ["a", "b"]):
        worker = Worker(*names)
        for each in worker.topics:
            worker.hear(each, "17")
        sent = CatchUp(worker.topics, Wish("17")).attempt(worker.listening, LIMITS)
        assert text_of(sent) == [(name, "unknown_id") for name in names]
        assert since(sent) == ["17"] * len(names)


def test_a_publishers_id_is_looked_for_elsewhere_only_if_that_may_be() -> None:
    worker = Worker("a")
    state = CatchUp(worker.topics, Wish("17"))
    sent = state.attempt(worker.listening, LIMITS, lambda: False)
    assert text_of(sent) == [("a", "unknown_id")]
    assert isinstance(state.attempt(worker.listening, LIMITS, lambda: True), Verify)
    state.verified = True
    assert isinstance(state.attempt(worker.listening, LIMITS, lambda: False), Find)
    assert text_of(state.attempt(worker.listening, LIMITS)) == [("a", "unknown_id")], "it was looked for once"


def test_an_id_of_the_previous_version_is_answered_from_redis_history_behind_a_gap() -> None:
    worker = Worker("a", "b")
    a, b = worker.topics
    for each in worker.topics:
        worker.hear(each)
    state = CatchUp(worker.topics, Wish("1790000000123-7"))
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Older)
    assert (need.count, need.previous) == (0, (1790000000123, 7))
    old = Entry(Position(1790000000124, 0, 1), "a", Event(b"old"))
    kept = Entry(at(9, 9), "b", Event(b"kept"))
    state.older = {a: ([old], at(10)), b: ([kept], at(10, 0, 5))}
    sent = state.attempt(worker.listening, LIMITS)
    assert text_of(sent) == [("a", "unknown_id"), ("b", "unknown_id"), ("a", "old"), ("b", "kept"), ("a", "x")], (
        "up to where Redis' history was read, and what has come since; of b that is everything"
    )
    assert since(sent) == ["1790000000123-7"] * 2


def test_what_others_know_fills_each_of_the_rings_holes() -> None:
    worker = Worker("a")
    (a,) = worker.topics
    worker.hear(a)
    worker.listening.lose()
    worker.connect(20)
    worker.hear(a)
    state = CatchUp(worker.topics, Wish(format_place((G, 5), [])))
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Find)
    (_, before), (_, lost) = need.holes
    assert (before, lost.position, lost.end, lost.kind) == (Hole(at(5), at(10), UNKNOWN), at(10, 0, 1), at(20), LOST)
    early, late = entry("a", at(7, 0, 1)), entry("a", at(15, 0, 1))
    state.found[a] = [
        Known(at(5), at(10), [early, Hole(at(8), at(9), "not_kept")]),
        Known(lost.position, at(20), [late]),
        Known(at(1), at(5), [entry("a", at(3, 0, 1))]),
        Known(at(20), at(30), [entry("a", at(25, 0, 1))]),
    ]
    sent = state.attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert [each.id and parse_place(each.id)[1] and each.id.split(".")[2] for each in sent] == [
        "7", None, "a", "f", "14",
    ]  # fmt: skip
    assert reasons(sent) == ["not_kept"]


def test_a_hole_that_was_asked_about_too_often_is_given_up() -> None:
    worker = Worker("a")
    (a,) = worker.topics
    worker.hear(a)
    worker.listening.lose()
    worker.connect(20)
    state = CatchUp(worker.topics, Wish(format_place((G, 5), [])))
    for state.tries in range(100):
        step = state.attempt(worker.listening, LIMITS)
        assert isinstance(step, Find)
        assert step.workers == (state.tries < 5), "from then on Redis alone"
    state.tries = 100
    assert text_of(state.attempt(worker.listening, LIMITS)) == [("a", "not_kept"), ("a", "x"), ("a", "redis_lost")]


def test_the_newest_events_of_each_topic_come_first_for_a_new_client() -> None:
    worker = Worker("a", "b")
    a, b = worker.topics
    for _ in range(3):
        worker.hear(a)
    worker.hear(b)
    state = CatchUp(worker.topics, Wish(history=2))
    need = state.attempt(worker.listening, LIMITS)
    assert isinstance(need, Older)
    assert (need.count, need.previous) == (2, None), "the ring of b holds one only"
    twice = Entry(at(10, 0, 1), "b", Event(b"twice"))
    state.older = {a: ([], at(10)), b: ([entry("b", at(4, 5)), entry("b", at(6, 7)), twice], at(10))}
    state.cut = {b: "too_many"}
    sent = state.attempt(worker.listening, LIMITS)
    assert isinstance(sent, list)
    assert [each.channel for each in sent] == ["b", "b", "a", "a", "b"]
    assert reasons(sent) == ["too_many"]
    assert since(sent) == [None]
    alone = CatchUp((a,), Wish(history=3)).attempt(worker.listening, LIMITS)
    assert isinstance(alone, list)
    assert len(alone) == 3, "nobody else is asked for what the ring holds"
    fewer = CatchUp((a,), Wish(history=1000)).attempt(worker.listening, Limits(2, 1000))
    assert isinstance(fewer, list)
    assert len(fewer) == 2, "never more than are sent again to one client"


def test_ids_say_when_the_new_topics_have_begun() -> None:
    worker = Worker("a", "b")
    a, b = worker.topics
    worker.hear(a)
    worker.listening.tick(Tick(G, 11, "server", {}))
    worker.hear(a)
    state = CatchUp(worker.topics, Wish(format_place((G, 10), []), new=frozenset(["b"])))
    sent = state.attempt(worker.listening, LIMITS)
    assert ids(sent if isinstance(sent, list) else []) == [
        format_place((G, 10), [(a.key, at(10, 0, 1))]),
        format_place((G, 11), [(a.key, at(11, 0, 1))]) + f".n{b.long_key[8:14]}",
    ], "whoever comes back with the first has not had what came on the new topic since"
    assert state.suffix.new == b.long_key[8:14]
    again = CatchUp(worker.topics, Wish(f"{format_place((G, 11), [])}.n{b.long_key[8:14]}"))
    assert again.suffix.new == b.long_key[8:14], "a stream that goes on has no URL"


def test_every_id_of_a_replay_says_whose_stream_it_is() -> None:
    a, b = topic("a"), topic("b")
    merged: list[tuple[Topic, Kept]] = [
        (a, entry("a", at(5, 0, 2))),
        (a, entry("a", at(6, 0, 1), own_id="17")),
        (a, Entry(Position(1790000000123, 0, 4, 0), "a", Event(b"x"))),
    ]
    said = [
        f"2.{G:x}.5.{a.key}:2.sproof",
        f"17~2.{G:x}.6.{a.key}:1.sproof",
        "1790000000123-4~2.0.0.sproof",
    ]
    for topics in ((a,), (a, b)):
        sent = list(Replay(topics, {a: at(5)}, {}, merged, None, proof="proof"))
        assert ids(sent) == said
    a.state = State.UNCOUNTED
    assert ids(Replay((a,), {a: at(5)}, {}, merged, None, proof="proof")) == ["2.0.0.sproof"] * 3


def test_some_topics_without_positions() -> None:
    worker = Worker("a", "b")
    a, b = worker.topics
    worker.hear(a)
    b.state = State.UNCOUNTED
    sent = CatchUp(worker.topics, Wish(format_place((G, 10), []))).attempt(worker.listening, LIMITS)
    assert text_of(sent) == [("b", "uncounted"), ("a", "x")]
    assert isinstance(sent, list)
    assert sent[1].id == NOWHERE
    a.state = State.UNCOUNTED
    sent = CatchUp(worker.topics, Wish(format_place((G, 10), []))).attempt(worker.listening, LIMITS)
    assert text_of(sent) == [("a", "uncounted"), ("b", "uncounted")]


def test_what_just_fits_is_within_the_limits() -> None:
    (a,) = Worker("a").topics
    merged: list[tuple[Topic, Kept]] = [(a, entry("a", at(10, 0, n), size=10)) for n in range(1, 3)]
    replay = Replay((a,), {a: at(10)}, {a: "too_many"}, merged, None)
    assert replay.is_within(Limits(3, 20))
    assert not replay.is_within(Limits(2, 20))
    assert not replay.is_within(Limits(3, 19))
    newest: dict[Topic, Iterable[Kept]] = {a: [each for _, each in reversed(merged)]}
    assert merge_topics(Limits(5, 20), (a,), (a,), newest)[0] == merged
    assert merge_topics(Limits(5, 19), (a,), (a,), newest)[0] == merged[1:]
