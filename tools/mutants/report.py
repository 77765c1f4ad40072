"""How many mutants were noticed, by package."""

from collections.abc import Iterable, Iterator

from tools.mutants.outcomes import KILLED, Outcomes, package_of

_HEAD = ["package", "mutants", "killed by quick unit tests", "by slow ones", "by live tests", "killed in all"]


def rows(outcomes: Outcomes, mutants: Iterable[str]) -> Iterator[list[str]]:
    """The table, without its head."""
    tried = [each for each in mutants if outcomes.on(each, "quick")]
    total = 0.0
    for package in sorted({package_of(mutant) for mutant in tried}):
        of_package = [each for each in tried if package_of(each) == package]
        through = [each for each in of_package if outcomes.is_let_through(each)]
        slow = [each for each in through if outcomes.on(each, "slow")]
        live = [each for each in slow if outcomes.on(each, "live")]
        killed_slow = sum(outcomes.on(each, "slow") == KILLED for each in slow)
        killed_live = sum(outcomes.on(each, "live") == KILLED for each in live)
        # What was not tried further is taken to be like what was.
        left = len(through) * (1 - _share(killed_slow, len(slow))) * (1 - _share(killed_live, len(live)))
        total += len(of_package) - left
        yield [
            package, f"{len(of_package):,}", f"{len(of_package) - len(through):,}",
            f"{killed_slow} of {len(slow)} tried", f"{killed_live} of {len(live)} tried",
            f"{1 - left / len(of_package):.0%}",
        ]  # fmt: skip
    if tried:
        yield ["all", f"{len(tried):,}", "", "", "", f"{total / len(tried):.0%}"]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def table(outcomes: Outcomes, mutants: Iterable[str]) -> str:
    """The same as Markdown."""
    lines = [_HEAD, ["---", *["--:"] * (len(_HEAD) - 1)], *rows(outcomes, mutants)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
