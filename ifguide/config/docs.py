"""The settings as Markdown tables, made from `config.py`, so that the docs cannot say something else.

`python -m ifguide.config.docs` prints them, `python -m ifguide.config.docs docs/formats.md` writes them between two
markers.
"""

import ast
import dataclasses
import inspect
import json
import sys
from pathlib import Path

from ifguide.config import schema as config
from ifguide.config.io import config_to_dict
from ifguide.config.schema import StudyConfig
from ifguide.errors import IFGuideError, InputError

BEGIN = "<!-- settings: written by `python -m ifguide.config.docs docs/formats.md` -->"
END = "<!-- end of settings -->"


def read_notes() -> dict[str, dict[str, str]]:
    """Class name -> field name -> the docstring under the field. Python keeps no such docstrings, so the source is
    read."""
    notes = {}
    for definition in ast.parse(inspect.getsource(config)).body:
        if isinstance(definition, ast.ClassDef):
            pairs = zip(definition.body, definition.body[1:], strict=False)
            notes[definition.name] = {
                field.target.id: inspect.cleandoc(note.value.value)
                for field, note in pairs
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(note, ast.Expr)
                and isinstance(note.value, ast.Constant)
                and isinstance(note.value.value, str)
            }
    return notes


def format_tables() -> str:
    """One heading and table a section of `study.toml`: setting, default as TOML, what it does."""
    notes, defaults = read_notes(), StudyConfig()
    text = ["| setting | default | what it does |", "|---|---|---|"]
    text.append(_row("description", defaults.description, notes["StudyConfig"]["description"]))
    for section in dataclasses.fields(defaults):
        table = getattr(defaults, section.name)
        if dataclasses.is_dataclass(table):
            kind = type(table)
            text += ["", f"### [{section.name}]", "", inspect.cleandoc(kind.__doc__ or ""), ""]
            text += ["| setting | default | what it does |", "|---|---|---|"]
            values = config_to_dict(table)
            text += [_row(f"{section.name}.{key}", values[key], notes[kind.__name__][key]) for key in values]
    return "\n".join(text) + "\n"


def _row(name: str, default, note: str) -> str:
    note = " ".join(note.split()).replace("|", "\\|")
    return f"| `{name}` | `{json.dumps(default)}` | {note} |"  # these plain values look alike in JSON and TOML


def replace_tables(text: str) -> str:
    """A document with the tables of today between its markers.

    Raises:
        InputError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"expected the lines {BEGIN!r} and {END!r}, found not both; put them back")
    return f"{before}{begin}\n\n{format_tables()}\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Print the tables, or write them into the file named by the one argument; 2 when that cannot be done."""
    if not arguments:
        print(format_tables(), end="")
        return 0
    path = Path(arguments[0])
    try:
        path.write_text(replace_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    except (IFGuideError, OSError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
