"""`make mutants`: see docs/mutants.md."""

import argparse
import random
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch

from tools.mutants.live import try_on_live_tests
from tools.mutants.outcomes import Outcomes, package_of
from tools.mutants.prepare import COPY
from tools.mutants.report import table
from tools.mutants.unit import SEED, try_on_unit_tests


def main() -> None:
    """Try what has not been tried, and print the table."""
    arguments = _arguments()
    if not arguments.report:
        subprocess.run([sys.executable, "-m", "tools.mutants.prepare"], check=True)
    outcomes = Outcomes()
    chosen = [mutant for mutant in outcomes.mutants if fnmatch(mutant, arguments.only)]
    if arguments.first:
        chosen = _some(chosen, arguments.first)
    if not arguments.report:
        if arguments.again:
            outcomes.forget_survivors(chosen)
        try_on_unit_tests(outcomes, [each for each in chosen if outcomes.on(each, "quick") is None], slow=False)
        sample = _some([each for each in chosen if outcomes.is_let_through(each)], arguments.sample)
        try_on_unit_tests(outcomes, [each for each in sample if outcomes.on(each, "slow") is None], slow=True)
        left = _some([each for each in sample if outcomes.is_left(each)], arguments.live)
        try_on_live_tests(outcomes, [each for each in left if outcomes.on(each, "live") is None])
    if arguments.survivors:
        print(*[each for each in chosen if not outcomes.is_killed(each)], sep="\n")
    print(table(outcomes, chosen))


def _some(mutants: Iterable[str], size: int) -> list[str]:
    """So many of each package, the same ones each time."""
    by_package: dict[str, list[str]] = {}
    for mutant in mutants:
        by_package.setdefault(package_of(mutant), []).append(mutant)
    chosen: list[str] = []
    for each in by_package.values():
        random.Random(SEED).shuffle(each)
        chosen += each[:size]
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=f"Results are kept in {COPY}/.")
    parser.add_argument("--only", default="*", metavar="GLOB", help="of mutants, as 'gateway.memory.ring.*'")
    parser.add_argument(
        "--first", type=int, default=0, metavar="N",
        help="only so many mutants of each package, chosen by a fixed seed; 0: all",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=int, default=40, metavar="N",
        help="so many of each package that the quick unit tests let through are tried on the slow ones",
    )  # fmt: skip
    parser.add_argument(
        "--live", type=int, default=20, metavar="N",
        help="so many of each package that these let through, too, are tried on the live tests",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="try those that survived once more: tests have changed")
    parser.add_argument("--report", action="store_true", help="print the table only")
    parser.add_argument("--survivors", action="store_true", help="print the names of those that survived, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
