"""The settings as Markdown tables, made from `ifguide.config.schema`.

python -m benchmarks.settings_tables      # writes them into docs/formats.md, between two markers
"""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from ifguide.config.io import describe_settings
from ifguide.config.schema import StudyConfig
from ifguide.errors import InputError

BEGIN = "<!-- settings: written by `python -m benchmarks.settings_tables` -->"
END = "<!-- end of settings -->"
_HEAD = ["| setting | default | what it does |", "|---|---|---|"]


def format_tables() -> str:
    """One heading and table per section of `study.toml`: setting, default as TOML, what it does."""
    config = StudyConfig()
    text = [*_HEAD, _rows(config, "")[0]]
    for section, table in vars(config).items():
        if dataclasses.is_dataclass(table):
            text += ["", f"### [{section}]", "", inspect.getdoc(table) or "", "", *_HEAD, *_rows(table, f"{section}.")]
    return "\n".join(text) + "\n"


def _rows(table: Any, prefix: str) -> list[str]:
    rows = [(key, value, note.replace("|", "\\|")) for key, value, note in describe_settings(table)]
    return [f"| `{prefix}{key}` | `{value}` | {note} |" for key, value, note in rows]


def replace_tables(text: str) -> str:
    """A document with the current tables between its markers; an InputError if a marker is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"expected the lines {BEGIN!r} and {END!r}, found at most one; put them back")
    return f"{before}{begin}\n\n{format_tables()}\n{end}{after}"


if __name__ == "__main__":
    page = Path("docs/formats.md")
    page.write_text(replace_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
