"""Writes the table of all settings into README.md, between its two marks; `make docs` runs it."""

from pathlib import Path

from gateway.commands.settings_options import default_text, unit
from gateway.settings import Settings, flag, variable

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: written by `make docs` -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """The table, as Markdown."""
    lines = ["| flag and variable | default | unit | what it does |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = default_text(field)
        text = (field.description or "").replace("|", "\\|")
        shown = f"`{default}`" if default else "–"
        lines.append(f"| `{flag(name)}`<br>`{variable(name)}` | {shown} | {unit(field)} | {text} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """The README with the table as it should be."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
