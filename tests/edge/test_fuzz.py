"""A short run of the fuzzers, and every case that once failed; `make fuzz` is the long one."""

import pytest

from fuzz import decoding
from fuzz.case import SAVED, Case, load, saved
from fuzz.chance import chance_of
from fuzz.edge import HIDDEN, ThroughNginx
from fuzz.run import generated, play
from fuzz.target import Target
from fuzz.targets import TARGETS

_SEED = 1
_CASES = {"keys in Redis": 10, "names and patterns": 20}
_USUAL = 150
_DECODED = 1500


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_worker_survives(target: type[Target]) -> None:
    made = target()
    numbers = range(_CASES.get(made.name, _USUAL))
    result = play(made, [*saved(made.name), *generated(made, _SEED, numbers)])
    assert not result.failures, [failure.what for failure in result.failures]
    assert result.cases >= len(numbers)
    assert made.counts.total(), "something came of them"
    assert result.what.endswith("."), "it says what it sends, for the documentation"


def test_a_hidden_request_would_be_seen() -> None:
    open_ = ThroughNginx(closed=False)
    result = play(open_, [Case("hidden", [[HIDDEN], 1, "wait"])])
    assert [failure.what for failure in result.failures if "has reached the worker" in failure.what]


def test_decoders_raise_what_they_say() -> None:
    result = decoding.play(_DECODED, _SEED)
    assert not result.failures, [failure.what for failure in result.failures]
    assert result.cases >= _DECODED / 2
    for case in saved(decoding.NAME):
        assert not decoding.replay(case)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_same_seed_makes_the_same_cases(target: type[Target]) -> None:
    contents = [[case.content for case in generated(target(), _SEED, range(50))] for _ in range(2)]
    assert contents[0] == contents[1]
    assert contents[0][7] == target().make(chance_of(_SEED, target.name, 7)), "whatever came before it"


def test_saved_cases_are_of_targets_that_there_are() -> None:
    names = {target.name for target in TARGETS} | {decoding.NAME}
    assert {load(file)[0] for file in SAVED.glob("*.json")} <= names
