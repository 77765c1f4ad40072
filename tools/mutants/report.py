"""How many mutants were noticed, by package."""

from collections.abc import Iterable, Iterator

from tools.mutants.outcomes import KILLED, LAYERS, UNCALLED, Outcomes, package_of

_HEAD = [
    "package", "mutants", "killed by quick unit tests", "let through", "tried further",
    "of these killed by slow unit tests", "killed by live tests", "killed in all",
]  # fmt: skip


def rows(outcomes: Outcomes, mutants: Iterable[str]) -> Iterator[list[str]]:
    """The table, without its head."""
    tried = [each for each in mutants if outcomes.on(each, "quick")]
    total = 0.0
    for package in sorted({package_of(mutant) for mutant in tried}):
        of_package = [each for each in tried if package_of(each) == package]
        through = [each for each in of_package if outcomes.is_let_through(each)]
        further = [each for each in through if outcomes.is_killed(each) or outcomes.on(each, "live")]
        killed = {layer: sum(outcomes.on(each, layer) == KILLED for each in further) for layer in LAYERS}
        # What was not tried further is taken to be like what was.
        share = sum(map(outcomes.is_killed, further)) / len(further) if further else 0.0
        estimate = len(of_package) - len(through) * (1 - share)
        total += estimate
        uncalled = sum(outcomes.on(each, "quick") == UNCALLED for each in through)
        yield [
            package, f"{len(of_package):,}", f"{len(of_package) - len(through):,}",
            f"{len(through):,}, {uncalled:,} of them never called", f"{len(further)}", f"{killed['slow']}",
            f"{killed['live']}", f"{estimate / len(of_package):.0%}",
        ]  # fmt: skip
    if tried:
        yield ["all", f"{len(tried):,}", "", "", "", "", "", f"{total / len(tried):.0%}"]


def table(outcomes: Outcomes, mutants: Iterable[str]) -> str:
    """The same as Markdown."""
    lines = [_HEAD, ["---", *["--:"] * (len(_HEAD) - 1)], *rows(outcomes, mutants)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
