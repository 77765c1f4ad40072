"""Rows of own channels and of new ones, peers, and two versions beside each other: what needs no server."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner

from benchmarks import against, mercure, program
from benchmarks.aims import verdicts
from benchmarks.command import main
from benchmarks.measurement import Figures, Measurement, figures
from benchmarks.opening_cost import OpeningCost, ticks_in
from benchmarks.rows import ROWS, missing
from benchmarks.scenario import SCENARIOS, Scenario
from benchmarks.table import notes
from gateway.bench import payload
from gateway.bench.latencies import Latencies
from gateway.bench.load import OWN_FIRST, Load
from gateway.bench.machine import SPARE_DESCRIPTORS, descriptors, readers
from gateway.bench.publisher import Http
from gateway.bench.result import Opening, Result
from gateway.bench.table import remarks

RESULT = Result(
    expected=1000, received=1000, lost=0, duplicates=0, out_of_order=0, short_streams=0, short_examples=(), closed=0,
    failures={}, wire_bytes=0, unheard=0, seconds=1.0, latencies=Latencies(), cpu=0.008, others_share=0.0,
    publisher_late=0.0, reader_share=0.0,
)  # fmt: skip
SCENARIO = Scenario("some", Load(100, 10, 1), ("direct",))


def round_with(cpu: float = 0.008, cost: OpeningCost | None = None, gaps: int = 0) -> Measurement:
    result = replace(RESULT, cpu=cpu, gaps=gaps)
    return Measurement(Opening(100, 0.01, 1700.0), result, opening_cost=cost)


def figures_with(cpu: float) -> Figures:
    return figures(SCENARIO, [round_with(cpu)])


# The loads


def test_own_channels_beside_a_shared_one() -> None:
    load = SCENARIOS["k"].load
    assert (load.streams, load.rate, load.own_channels, load.own_rate) == (4_000, 10, 400, 1)
    assert load.own_messages == load.own_channels * load.duration
    assert load.messages < OWN_FIRST
    assert len(payload.encode(OWN_FIRST + load.own_messages, 10**18, load.size)) == load.size


def test_each_new_channel_gets_a_message() -> None:
    load = SCENARIOS["l"].load
    assert load.channels == load.streams == load.messages == 10_000
    assert SCENARIOS["l"].counts_opening


def test_readers_are_as_many_as_open_files_ask_for() -> None:
    room = descriptors() - SPARE_DESCRIPTORS
    assert [readers(streams) for streams in (1, room, room + 1, 3 * room)] == [1, 1, 2, 3]


# What is made of what was found


def test_own_channels_are_held_against_the_shared_one_alone() -> None:
    found = {"a": {"direct": figures_with(0.006)}, "k": {"direct": figures_with(0.0068)}}

    def verdict() -> tuple[str, bool | None]:
        (one,) = [one for one in verdicts(found) if one.aim.scenario == "k"]
        return one.measured, one.reached

    assert verdict() == ("6.8 µs (1.13 × direct in (a))", True)
    found["k"]["direct"] = figures_with(0.007)
    assert verdict() == ("7.0 µs (1.17 × direct in (a))", False)
    del found["a"]
    assert verdict() == ("–", None)


def test_a_gap_is_a_fault() -> None:
    assert figures(SCENARIO, [round_with(gaps=2)]).faults == 2
    assert remarks(replace(RESULT, gaps=2)) == ["GAPS: streams were told 2 times that they missed something."]


def test_what_opening_took() -> None:
    before = OpeningCost({"subscribe": 3, "ping": 5, "fcall": 1}, 7)
    cost = OpeningCost({"subscribe": 103, "ping": 5, "fcall": 41, "publish": 2}, 19).since(before)
    assert cost == OpeningCost({"subscribe": 100, "fcall": 40, "publish": 2}, 12)
    assert str(cost) == "142 commands (100 SUBSCRIBE, 40 FCALL, 2 PUBLISH), 12 ticks"
    one = figures(SCENARIO, [round_with(cost=replace(cost, ticks=ticks)) for ticks in (12, 13, 14)])
    assert one.opening_cost == replace(cost, ticks=13)
    assert f"Opening took Redis direct: {one.opening_cost}." in notes({"direct": one})
    assert json.loads(json.dumps(round_with(cost=cost).as_json()))["opening_cost"]["ticks"] == 12


@pytest.mark.parametrize(
    ("metrics", "ticks"),
    [
        ("gateway_clients 3.0\n", 0),
        ("# TYPE gateway_ticks_total counter\ngateway_ticks_total 17.0\ngateway_ticks_created 1.7e9\n", 17),
        ('gateway_ticks_total{link="0"} 2.0\ngateway_ticks_total{link="1"} 3.0\n', 5),
    ],
)
def test_ticks_are_counted_where_there_are_any(metrics: str, ticks: int) -> None:
    assert ticks_in(metrics) == ticks


# Peers


def test_a_peer_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.installed({"mercure": None}) == {}
    lacking = missing(tmp_path, program.installed({}))
    assert lacking["mercure"] == "mercure is not on PATH, and --mercure does not say where it is."
    assert {need for row in ROWS.values() for need in row.needs} <= lacking.keys() | {"nginx", "nchan"}


def test_a_peer_is_found_where_it_was_said_or_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mercure", "centrifugo", "other"):
        (tmp_path / name).write_text("#!/bin/sh\necho v1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = program.installed({"mercure": tmp_path / "other", "centrifugo": None})
    assert found == {"mercure": tmp_path / "other", "centrifugo": tmp_path / "centrifugo"}
    assert program.lacking(found) == {}
    assert program.version(found["mercure"]) == "v1"
    assert program.version(None) is None


def posted(
    headers: Sequence[str], body: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], bytes]:
    monkeypatch.setattr("socket.create_connection", lambda *_: _Socket())
    request = Http("http://127.0.0.1:1/p?channel={channel}", headers, body).publish("c-1", data)
    head, _, content = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /p?channel=c-1 HTTP/1.1"
    assert f"Content-Length: {len(content)}" in lines
    return lines, content


class _Socket:
    def setsockopt(self, *_: int) -> None:
        """As a socket has it."""


def test_a_message_is_posted_as_it_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'{"n":1,"t":2,"pad":"{channel}"}'
    assert posted((), "{data}", data, monkeypatch)[1] == data


def test_a_message_is_posted_within_json(monkeypatch: pytest.MonkeyPatch) -> None:
    data = payload.encode(1, 2, 80)
    body = '{"channel":"{channel}","data":{data}}'
    lines, content = posted(["Content-Type: application/json"], body, data, monkeypatch)
    assert "Content-Type: application/json" in lines
    assert json.loads(content) == {"channel": "c-1", "data": json.loads(data)}


def test_a_message_is_posted_within_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    data = '{"n":1,"t":2,"pad":"& = + % é {data}"}'
    _, content = posted([], "topic={channel}&data={quoted}", data.encode(), monkeypatch)
    assert parse_qs(content.decode()) == {"topic": ["c-1"], "data": [data]}


def test_the_token_of_a_mercure_publisher() -> None:
    head, claims, signature = mercure.publisher_token("secret", 1_000.9).split(".")

    def decoded(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    assert json.loads(decoded(head)) == {"alg": "HS256", "typ": "at+jwt"}
    assert json.loads(decoded(claims)) == {
        "iss": "https://localhost",
        "aud": "https://localhost/.well-known/mercure",
        "exp": 87_400,
        "authorization_details": [
            {
                "type": "https://mercure.rocks/authorization-detail",
                "actions": ["publish"],
                "topics": [{"match": "*"}],
            }
        ],
    }
    assert decoded(signature) == hmac.new(b"secret", f"{head}.{claims}".encode(), hashlib.sha256).digest()


def test_the_caddyfile_has_what_the_token_says() -> None:
    text = mercure.caddyfile(8201, "key")
    assert text.count("{") == text.count("}") == 7
    for line in ("http://:8201 {", "issuer https://localhost {", "jwt key HS256", "anonymous", "transport local"):
        assert line in text


# Two versions


def test_the_ratios_of_two_versions() -> None:
    cost = OpeningCost({"subscribe": 100}, 0)
    sides = {
        against.BEFORE: [round_with(0.006, cost), round_with(0.008, cost), round_with(0.007, cost)],
        against.NOW: [round_with(0.006, cost), round_with(0.009, cost), round_with(0.0084, cost)],
    }
    lines = {(line[0], line[1]): line[2:] for line in against.cells({"l": sides, "a": sides})}
    assert lines["(a)", "CPU µs/delivery"] == ["7.00", "8.40", "1.20", "1.00 1.12 1.20", "worse"]
    assert lines["(l)", "connects/s"] == ["10,000", "10,000", "1.00", "1.00 1.00 1.00", ""]
    assert lines["(l)", "Redis commands"][:3] == ["100", "100", "1.00"]
    assert lines["(l)", "ticks"] == ["0", "0", "–", "– – –", ""], "the version before has none"
    assert all(len(line) == len(against.HEADINGS) for line in against.cells({"a": sides}))
    assert against.table(against.cells({"a": sides, "l": sides})).row_count == len(lines)


def test_more_of_what_is_good_is_not_worse() -> None:
    slow = replace(round_with(), result=replace(RESULT, seconds=1.05))

    def mark(before: Measurement, now: Measurement) -> str:
        lines = against.cells({"a": {against.BEFORE: [before], against.NOW: [now]}})
        return next(line for line in lines if line[1] == "deliveries/s")[-1]

    assert mark(round_with(), slow) == "worse"
    assert mark(slow, round_with()) == ""
    assert mark(round_with(), round_with()) == ""


def test_own_channels_of_both_versions() -> None:
    found = {
        "a": {against.BEFORE: figures_with(0.006), against.NOW: figures_with(0.006)},
        "k": {against.BEFORE: figures_with(0.009), against.NOW: figures_with(0.0066)},
    }
    assert against.own_channels(found).endswith("in (a): before 1.50, direct 1.10.")
    assert against.own_channels({"a": found["a"]}) == ""


def test_what_is_compared_by_default_has_our_row() -> None:
    assert list(against.rows(Path("elsewhere"))) == [against.BEFORE, against.NOW]
    assert set(against.LETTERS) <= set(SCENARIOS)
    for letter in against.LETTERS:
        assert against.NOW in SCENARIOS[letter].rows


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--against", "."], "there is no gateway in it"),
        (["--against", "nowhere"], "does not exist"),
        (["--against", "other", "--row", "direct"], "leave out --row"),
        (["--against", "other", "--write"], "leave out --row"),
        (["--mercure", "nowhere"], "does not exist"),
        (["--scenario", "z"], "there are a, b"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "gateway").mkdir(parents=True)
    (tmp_path / "other" / "gateway" / "__main__.py").touch()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert complaint in done.output
