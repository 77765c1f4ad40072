"""Faults 9 and 10: what comes through a pattern."""

import redis

from testing.waiting import wait_until
from tests.live.faults.client import Client
from tests.live.faults.conftest import Start
from tests.live.faults.publishing import durable, finish, plain, wait_functions


def test_a_channel_that_opens_between_two_copies(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 9: subscribers of c* got d's event when the opening of d came between the copies of c's message."""
    c, d = channel + "c", channel + "d"
    worker = start()
    with Client(patterns=[c + "*"]) as wild, Client(c, patterns=[c + "*"]) as both, Client(d) as holder:
        for each in (wild, both, holder):
            each.open(worker)
        expected = []
        others = []
        for turn in range(60):
            opened = Client(f"{d}{turn}", c)
            with publisher.pipeline(transaction=False) as pipeline:
                for number in range(20):
                    pipeline.publish(c, f"c {turn} {number}")
                    pipeline.publish(f"{d}{turn}", f"d {turn} {number}")
                    pipeline.publish(c + "x", f"x {turn} {number}")
                    expected += [f"c {turn} {number}", f"x {turn} {number}"]
                if turn % 2:
                    pipeline.execute()
                    opened.open(worker)
                else:
                    opened.open(worker)
                    pipeline.execute()
            others.append(opened)
        assert wild.take(len(expected)) == both.take(len(expected)) == expected
        plain(publisher, d, ["d only"])
        plain(publisher, c, ["end"])
        assert wild.take(1) == both.take(1) == ["end"]
        assert holder.take(1) == ["d only"]
        for turn, opened in enumerate(others):
            opened.until("end")
            texts = [event for event in opened.events if event.startswith("d ")]
            assert texts == ([] if turn % 2 else [f"d {turn} {number}" for number in range(20)])
            assert opened.gaps == []
            opened.leave()


def test_every_id_received_through_a_pattern_leads_back(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 10: those of a later batch were kept with time 0."""
    worker, other = start(), start()
    wait_functions(publisher)
    pattern = channel + "*"
    texts = []
    with Client(patterns=[pattern]) as wild, Client(patterns=[pattern]) as holder, Client(channel + "0") as named:
        holder.open(other)
        wild.open(worker)
        named.open(worker)
        for number in range(9):
            text = f"{number}"
            (durable if number % 3 == 2 else plain)(publisher, f"{channel}{number % 2}", [text])
            texts.append(text)
            assert wild.take(1) == [text]
        for at, id_ in enumerate(list(wild.ids)):
            for on in (worker, other):
                assert wild.open(on, id_) == texts[at + 1 :]
        assert named.take(5) == texts[::2]


def test_giving_up_a_pattern_leaves_the_others_alone(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 10: the channels received through the other pattern lost their ids."""
    worker = start(linger=0)
    one, two = channel + "*", channel + "a*"
    with Client(patterns=[one]) as stays, Client(patterns=[two]) as leaves, Client(patterns=[one]) as away:
        for each in (stays, leaves, away):
            each.open(worker)
        plain(publisher, channel + "a", ["1", "2"])
        for each in (stays, leaves, away):
            assert each.take(2) == ["1", "2"]
        away.leave()
        patterns = publisher.pubsub_numpat()
        leaves.leave()
        wait_until(lambda: publisher.pubsub_numpat() == patterns - 1, "one pattern is given up")
        plain(publisher, channel + "a", ["3"])
        assert away.open(worker) == ["3"]
        assert away.open(worker, away.ids[0]) == ["2", "3"]
        assert leaves.open(worker) in (["3"], [f"gap {two} not_kept"])
        plain(publisher, channel + "a", ["4"])
        assert stays.take(2) == ["3", "4"]
        assert away.take(1) == leaves.take(1) == ["4"]


def test_patterns_are_handed_over(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 10: 147 events were lost in a rolling update."""
    old = start(linger=0)
    names = [f"{channel}{letter}" for letter in "abc"]
    pattern = channel + "*"
    with Client(patterns=[pattern]) as wild, Client(names[0], patterns=[channel + "b*"]) as mixed:
        wild.open(old)
        mixed.open(old)
        sent: list[str] = []

        def publish() -> None:
            for name in names:
                sent.append(f"{name} {len(sent)}")
                plain(publisher, name, [sent[-1]])

        workers = [old]
        for _ in range(3):
            publish()
            workers.append(start(linger=0))
            finish(workers[-2])
            wild.rest()
            mixed.rest()
            publish()
            wild.open(workers[-1])
            mixed.open(workers[-1])
        publish()
        wild.until(sent[-1])
        mixed.until(sent[-2])
        assert wild.events == sent
        for name in names[:2]:
            assert [text for text in mixed.events if text.startswith(name)] == [
                text for text in sent if text.startswith(name)
            ]
        assert mixed.gaps == []


def test_durable_events_are_read_for_patterns(start: Start, publisher: redis.Redis, channel: str) -> None:
    """Fault 10: for patterns Redis was never asked."""
    names = [f"{channel}{number}" for number in range(5)]
    pattern = channel + "*"
    for durable_only in (True, False):
        settings = {"durable_channels": pattern} if durable_only else {}
        worker = start(**settings)
        wait_functions(publisher)
        with Client(patterns=[pattern]) as wild, Client(names[0], patterns=[pattern]) as both:
            wild.open(worker)
            both.open(worker)
            durable(publisher, names[1], ["seen"])
            assert wild.take(1) == both.take(1) == ["seen"]
            worker.kill()
            wild.rest()
            both.rest()
            missed = []
            for turn in range(3):
                for name in names:
                    missed.append(f"{name} {turn}")
                    durable(publisher, name, missed[-1:])
            worker = start(**settings)
            gaps = [] if durable_only else [f"gap {pattern} not_kept"]
            assert wild.open(worker) == [*gaps, *missed]
            both.open(worker)
            assert sorted(both.messages[1:]) == sorted(missed)
            for name in names:
                assert [text for text in both.messages if text.startswith(name)] == [
                    text for text in missed if text.startswith(name)
                ]
            gaps = [] if durable_only else [f"gap {names[0]} not_kept", *gaps]
            assert sorted(both.gaps) == sorted(gaps)
            worker.kill()
