"""Playing the decoders, by hypothesis and by atheris."""

import time
from collections.abc import Callable

from hypothesis import HealthCheck, given, seed, settings

from fuzz import coverage
from fuzz.case import Case, Failure
from fuzz.decoders import DECODERS, Decoder
from fuzz.run import Result

NAME = "decoders"
SHARE = 35
GUIDED = "decoders, guided by coverage"
_WHAT = f"{len(DECODERS)} functions that take apart what comes from outside, in one process."


def examples(decoder: Decoder, cases: int) -> int:
    """The decoder's part of so many cases."""
    return max(1, round(cases / decoder.cost / sum(1 / each.cost for each in DECODERS)))


def play(cases: int, number: int, progress: Callable[[int], None] = lambda _: None) -> Result:
    """So many inputs that hypothesis makes."""
    what = f"{_WHAT} Input by hypothesis; nothing but the documented errors, and round trips come back."
    return _play_all(Result(NAME, what), cases, lambda decoder, count: _play(decoder, count, number), progress)


def play_guided(cases: int, number: int, progress: Callable[[int], None] = lambda _: None) -> Result:
    """So many inputs that atheris makes."""
    result = Result(GUIDED, "The same by atheris, which looks for input that reaches other code.")
    return _play_all(result, cases, lambda decoder, count: coverage.play(decoder.name, count, number), progress)


def _play_all(
    result: Result,
    cases: int,
    play_one: Callable[[Decoder, int], tuple[int, list[Failure]]],
    progress: Callable[[int], None],
) -> Result:
    """Each decoder's part of so many inputs."""
    began = time.monotonic()
    for decoder in DECODERS:
        done, failures = play_one(decoder, examples(decoder, cases))
        result.cases += done
        result.counts[decoder.name] = done
        result.failures += failures
        progress(done)
    result.seconds = time.monotonic() - began
    return result


def _play(decoder: Decoder, cases: int, number: int) -> tuple[int, list[Failure]]:
    done = 0
    failed: list[bytes] = []

    @seed(number)
    @settings(max_examples=cases, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(decoder.inputs())
    def check(data: bytes) -> None:
        nonlocal done
        done += 1
        try:
            decoder.check(data)
        except Exception:
            failed.append(data)
            raise

    try:
        check()
    except Exception as error:
        case = Case(decoder.name, [decoder.name, failed[-1]]) if failed else None
        return done, [Failure(case, f"{type(error).__name__}: {error}")]
    return done, []


def replay(case: Case) -> list[Failure]:
    """One input again."""
    name, data = case.content
    try:
        next(decoder for decoder in DECODERS if decoder.name == name).check(data)
    except Exception as error:
        return [Failure(case, f"{type(error).__name__}: {error}")]
    return []
