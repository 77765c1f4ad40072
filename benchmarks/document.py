"""The generated part of a page, between two marks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.aims import Found, Verdict
from benchmarks.scenario import SCENARIOS
from benchmarks.table import HEADINGS, cells, markdown, notes, said

DOCS = Path(__file__).parents[1] / "docs"


def replaced(page: str, name: str, text: str) -> str:
    """The page with that text between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = f"<!-- {name}: written by `python -m benchmarks", f"<!-- end of {name} -->\n"
    start = page.index(begin)
    start = page.index("\n", start) + 1
    return f"{page[:start]}\n{text}\n{page[page.index(end, start) :]}"


def rewrite(path: Path, name: str, text: str) -> None:
    """Put the text into that file, between its marks."""
    path.write_text(replaced(path.read_text(), name, text))


def results(
    found: Found,
    verdicts: Sequence[Verdict],
    machine: Mapping[str, str],
    command: str,
    date: str,
    charts: Sequence[str],
) -> str:
    """Everything a run found, as Markdown."""
    parts = [
        f"Measured {date} by `{command}`. Medians of the rounds of this one run, rows in turn; loss is the sum.\n",
        "\n".join(f"- {name}: {value}" for name, value in machine.items()) + "\n",
        "### Aims\n",
        markdown(("aim", "measured", "reached"), [(one.aim.text, one.measured, said(one)) for one in verdicts]),
    ]
    for letter, rows in found.items():
        load = SCENARIOS[letter].load
        parts.append(f"### ({letter}) {SCENARIOS[letter].title}\n")
        parts.append(
            f"Payloads of {load.size:,} bytes, {load.duration:g} s, {next(iter(rows.values())).rounds} rounds.\n"
        )
        parts.extend(
            f"![CPU per delivery in scenario {letter}]({name})\n" for name in charts if f"-{letter}." in name
        )
        parts.append(markdown(HEADINGS, [cells(name, one) for name, one in rows.items()]))
        parts.append("\n".join(f"{sentence}  " for sentence in notes(rows)).rstrip() + "\n")
    return "\n".join(parts)
