"""Plans, aims and figures of `python -m benchmarks`: what holds on any machine, however fast it is."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from benchmarks import capacity, document, hundred_thousand
from benchmarks.aims import AIMS, verdicts
from benchmarks.chart import chart
from benchmarks.costs import Costs, Demand, Sample, fit, need
from benchmarks.kernel import kernel_memory, limits
from benchmarks.measurement import Figures, Measurement, figures
from benchmarks.rows import ROWS
from benchmarks.scenario import SCENARIOS, Scenario
from benchmarks.table import HEADINGS, cells, markdown, notes
from gateway.bench import payload
from gateway.bench.latencies import Latencies
from gateway.bench.ledger import Ledger
from gateway.bench.load import Load
from gateway.bench.publisher import Http
from gateway.bench.result import Opening, Result

# The plans


@pytest.mark.parametrize("letter", SCENARIOS)
def test_every_scenario_is_bounded(letter: str) -> None:
    scenario = SCENARIOS[letter]
    load = scenario.load
    assert scenario.bound < 120
    assert load.messages == load.rate * load.duration
    assert load.size >= payload.SMALLEST
    assert load.streams < 20_000 - 100, "one worker and one reader must be able to hold them"
    assert set(scenario.rows) <= set(ROWS)
    assert "direct" in scenario.rows
    if load.channels > 1:
        assert not {"limit", "tutorial"} & set(scenario.rows), "these know no channels, or one per stream"
    if load.all_channels:
        assert load.channels <= 100
        assert "nchan" not in scenario.rows, "it is not set up for several channels"
    if scenario.bystander:
        assert "limit" not in scenario.rows, "it sends everything to everybody"
        assert scenario.bystander.duration == load.duration


def test_every_aim_names_rows_that_its_scenario_has() -> None:
    for aim in AIMS:
        names = {part.row for part in aim.parts} | {part.reference for part in aim.parts if part.reference}
        assert names <= set(SCENARIOS[aim.scenario].rows), aim.text


@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("streams", [1, 999, 20_000, 100_000])
def test_a_plan_has_room_for_all_streams(streams: int, edge: bool) -> None:
    plan = hundred_thousand.plan(streams, 1, 60, edge, files=20_000)
    assert plan.workers * 19_900 >= streams
    assert plan.readers * 19_900 >= streams
    assert plan.edges * 9_500 >= streams
    if not edge:
        assert plan.readers % plan.workers == 0
        assert streams / plan.workers < 19_900
    if streams == 100_000:
        assert plan.workers >= 6


def test_what_the_kernel_allows_is_known() -> None:
    found = list(limits(1000, 1000, tcp_upstreams=True))
    assert all(one.suffices or one.passes for one in found), found
    assert not all(one.suffices for one in limits(10**9, 10**9, tcp_upstreams=False))
    memory = kernel_memory()
    assert memory.slab > 0
    assert memory.since(memory).available == 0


# What is shown

FIGURES = Figures(
    rounds=3, expected=100, received=100, lost=0, faults=0, keeps_up=True, deliveries_per_second=300_000.0,
    p50=1.0, p90=2.0, p99=3.0, p999=4.0, cpu=8.0, proxy_cpu=None, cpu_per_message=100.0, memory=2000.0,
    proxy_memory=None, connects_per_second=10_000.0, connect_cpu=100.0, bystander_p99=10.0, bytes_per_delivery=160.0,
    others=0.0, reader=0.5,
)  # fmt: skip
BEHIND = replace(FIGURES, proxy_cpu=7.0, proxy_memory=10_000.0)


def verdict(text: str, found: dict[str, dict[str, Figures]]) -> tuple[str, bool | None]:
    (one,) = [one for one in verdicts(found) if text in one.aim.text]
    return one.measured, one.reached


def test_an_aim_against_another_row() -> None:
    text = "(a) CPU per delivery ≤ 1.25 × limit"
    rows = {"direct": FIGURES, "limit": replace(FIGURES, cpu=6.5)}
    assert verdict(text, {"a": rows}) == ("8.0 µs (1.23 × limit)", True)
    rows["limit"] = replace(FIGURES, cpu=6.3)
    assert verdict(text, {"a": rows}) == ("8.0 µs (1.27 × limit)", False)
    del rows["limit"]
    assert verdict(text, {"a": rows}) == ("–", None)


def test_an_aim_of_two_parts_needs_both() -> None:
    text = "(c) 300,000 deliveries/s on one core"
    assert verdict(text, {"c": {"direct": FIGURES}}) == ("300,000 of 300,000 offered", True)
    assert verdict(text, {"c": {"direct": replace(FIGURES, lost=1)}})[1] is False
    assert verdict(text, {"c": {"direct": replace(FIGURES, deliveries_per_second=290_000)}})[1] is False


def test_who_lags_by_less_than_a_percent_has_kept_up() -> None:
    text = "(g) 20,000 messages/s"
    assert verdict(text, {"g": {"direct": replace(FIGURES, deliveries_per_second=99_500)}}) == (
        "19,900 of 20,000 offered", True,
    )  # fmt: skip
    assert verdict(text, {"g": {"direct": replace(FIGURES, deliveries_per_second=98_900)}})[1] is False


def test_gzip_against_none() -> None:
    rows = {
        "direct": replace(FIGURES, bytes_per_delivery=1000.0),
        "direct gzip": replace(FIGURES, bytes_per_delivery=430.0, cpu=8.7),
    }
    assert verdict("gzip: bytes", {"j": rows}) == ("430 (0.43 × direct)", True)
    assert verdict("gzip: CPU", {"j": rows}) == ("8.7 µs (1.09 × direct)", True)
    rows["direct gzip"] = replace(FIGURES, bytes_per_delivery=1000.0, cpu=8.9)
    assert verdict("gzip: bytes", {"j": rows})[1] is False, "a server that does not compress"
    assert verdict("gzip: CPU", {"j": rows})[1] is False


def test_the_small_channel_beside_a_broadcast_that_lags_shows_nothing() -> None:
    text = "(i) p99 of the small channel"
    assert verdict(text, {"i": {"direct": FIGURES}}) == ("10.0 ms", True)
    assert verdict(text, {"i": {"direct": replace(FIGURES, keeps_up=False)}})[1] is False


def test_behind_nginx_both_count() -> None:
    rows = {"direct+nginx unix": BEHIND}
    assert verdict("unix socket, together", {"a": rows}) == ("15.0 µs", True)
    assert verdict("unix socket, together", {"a": {"direct+nginx unix": replace(BEHIND, cpu=9.5)}})[1] is False


def test_tokens_against_none() -> None:
    rows = {"direct": FIGURES, "direct token": replace(FIGURES, connects_per_second=6_000.0, connect_cpu=249.0)}
    assert verdict("connects/s with a token", {"h": rows}) == ("6,000 (0.60 × direct)", True)
    assert verdict("CPU per connect with a token", {"h": rows}) == ("249 µs (2.49 × direct)", True)
    rows["direct token"] = replace(FIGURES, connects_per_second=5_900.0, connect_cpu=251.0)
    assert verdict("connects/s with a token", {"h": rows})[1] is False
    assert verdict("CPU per connect with a token", {"h": rows})[1] is False


def test_only_what_was_measured_is_judged() -> None:
    assert not list(verdicts({}))
    assert {one.aim.scenario for one in verdicts({"g": {"direct": FIGURES}})} == {"g"}


def test_a_row_has_a_cell_for_each_heading() -> None:
    for one in (FIGURES, BEHIND, replace(FIGURES, keeps_up=False, lost=3)):
        assert len(cells("direct", one)) == len(HEADINGS)
    assert cells("direct", replace(FIGURES, lost=3))[2] == "3 of 100"
    assert any("cannot keep up" in sentence for sentence in notes({"x": replace(FIGURES, keeps_up=False)}))
    lines = markdown(HEADINGS, [cells("direct", FIGURES)]).splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_the_chart_is_an_svg_with_a_bar_for_each_part() -> None:
    root = ElementTree.fromstring(chart("4,000 < 5,000 & more", {"direct": FIGURES, "direct+nginx unix": BEHIND}))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == space + "svg"
    background, *bars = root.iter(space + "rect")
    assert len(bars) == 3
    width = float(background.attrib["width"])
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) < width for bar in bars)
    assert float(bars[0].attrib["width"]) == pytest.approx(float(bars[1].attrib["width"]))
    assert any("8.0 + 7.0 nginx" in (text.text or "") for text in root.iter(space + "text"))


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = "before\n<!-- x: written by `python -m benchmarks` -->\nold\n<!-- end of x -->\nafter\n"
    once = document.replaced(page, "x", "new\n")
    assert once.startswith("before\n<!-- x: written by `python -m benchmarks` -->\n")
    assert once.endswith("<!-- end of x -->\nafter\n")
    assert "old" not in once
    assert "new" in once
    assert document.replaced(once, "x", "new\n") == once
    with pytest.raises(ValueError, match="not found"):
        document.replaced("no marks", "x", "new")


@pytest.mark.parametrize(
    ("page", "mark"),
    [
        ("benchmarks.md", "results"),
        ("benchmarks.md", "hundred thousand through nginx"),
        ("benchmarks.md", "hundred thousand without nginx"),
        ("capacity.md", "costs"),
        ("capacity.md", "check"),
        ("capacity.md", "examples"),
    ],
)
def test_the_pages_have_the_marks(page: str, mark: str) -> None:
    text = (document.DOCS / page).read_text()
    assert "new" in document.replaced(text, mark, "new\n")


def test_the_page_of_a_run_names_everything() -> None:
    found = {"a": {"direct": FIGURES, "direct+nginx unix": BEHIND}}
    page = document.results(
        found, list(verdicts(found)), {"processor": "fast"}, "python -m benchmarks", "2026-01-01", ["x/cpu-a.svg"]
    )
    for text in (
        "processor: fast",
        "`python -m benchmarks`",
        "2026-01-01",
        "(x/cpu-a.svg)",
        "| direct |",
        "### Aims",
    ):
        assert text in page


# The formula


def test_costs_are_found_again() -> None:
    costs = Costs(delivery=8e-6, byte=1e-9, message=30e-6, memory=2000, kernel=4000)

    def sample(demand: Demand) -> Sample:
        return Sample(demand, need(costs, demand).cores)

    small = sample(Demand(4000, 10, 110, 10))
    large = sample(Demand(500, 5, 50_000, 5))
    many = Sample(Demand(10, 1000, 110, 10_000), 10_000 * costs.message)
    found = fit(small, large, many, costs.memory, costs.kernel)
    assert found.delivery == pytest.approx(costs.delivery)
    assert found.byte == pytest.approx(costs.byte)
    assert found.message == pytest.approx(costs.message)


def test_what_a_million_need() -> None:
    costs = Costs(delivery=10e-6, byte=0, message=100e-6, memory=2000, kernel=4000)
    one = need(costs, Demand(1_000_000, 1, 500, 1), workers=10)
    assert one.cores == pytest.approx(10.001)
    assert one.memory == 6e9
    assert one.bandwidth == 1_000_000 * (500 + 50 + 66) * 8


def test_the_held_out_load_is_none_of_those_the_costs_come_from() -> None:
    for load in (capacity.SMALL, capacity.LARGE, capacity.MANY):
        assert load.size != capacity.HELD_OUT.size
        assert load.streams != capacity.HELD_OUT.streams


# The generator's additions


def test_between_channels_messages_may_change_places() -> None:
    ledger = Ledger(channels=2)
    assert ledger.record((1, 0, 3, 2)) == 4
    assert (ledger.reordered, ledger.duplicates, ledger.lost(4)) == (0, 0, 0)
    ledger.record((6, 4, 5))
    assert (ledger.reordered, ledger.lost(7)) == (1, 0), "4 and 6 are of one channel, 5 of the other"
    ledger.record((4,))
    assert ledger.duplicates == 1


def test_answers_over_http_are_told_apart_wherever_they_are_cut() -> None:
    answers = b"".join(
        b"HTTP/1.1 201 Created\r\nServer: nginx\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%s"
        % (len(body), body)
        for body in (b"queued messages: 1\r\n\r\n", b"", b"HTTP/1.1 500 is what this is not\r\n\r\n")
    )
    matches = 0
    rest = answers
    while answer := Http._ANSWER.match(rest):
        assert answer[1] == b"201"
        rest = rest[answer.end() + int(answer[2]) :]
        matches += 1
    assert matches == 3
    assert not rest
    for cut in range(answers.index(b"\r\n\r\n") + 4):
        assert not Http._ANSWER.match(answers[:cut])


# What was lost, and the aims of a hundred thousand

_RESULT = Result(
    expected=0, received=0, lost=0, duplicates=0, out_of_order=0, short_streams=0, short_examples=(), closed=0,
    failures={}, wire_bytes=0, unheard=0, seconds=1.0, latencies=Latencies(), cpu=None, others_share=None,
    publisher_late=0.0, reader_share=0.0,
)  # fmt: skip
SMALL = Scenario("small", Load(20, 100, 0.2), tuple(ROWS))


def test_what_a_bystander_loses_is_lost() -> None:
    whole = replace(_RESULT, expected=100, received=100)
    short = replace(_RESULT, expected=10, received=9, lost=1, out_of_order=2, closed=1)
    one = figures(SMALL, [Measurement(Opening(1, 1.0, None), whole, bystander=short)])
    assert (one.expected, one.received, one.lost, one.faults) == (110, 109, 1, 3)


@pytest.mark.parametrize(
    ("once", "lost", "said"),
    [(399_000_000, 0, ["100 %: yes", "399 MB: yes"]), (401_000_000, 1, ["99.9999 %: NO", "401 MB: NO"])],
)
def test_the_aims_of_a_hundred_thousand(once: int, lost: int, said: list[str]) -> None:
    plan = hundred_thousand.plan(100_000, 1, 60, True, files=20_000)
    result = replace(_RESULT, expected=1_000_000, received=1_000_000 - lost, lost=lost)
    memory = {"workers": (500_000_000, once), "nginx": (0, 0)}
    found = hundred_thousand.Found(Opening(100_000, 1.0, None), result, memory, kernel_memory(), [])
    aims = [value for name, value in hundred_thousand.rows(plan, found).items() if name.startswith("aim: ")]
    assert [part in aim for part, aim in zip(said, aims, strict=True)] == [True, True], aims
