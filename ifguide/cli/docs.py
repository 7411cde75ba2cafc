"""The commands as one Markdown page, made from the code: `python -m ifguide.cli.docs docs/commands.md`."""

import inspect
import sys
from pathlib import Path

import typer

from ifguide.cli.main import app

NOTE = "<!-- Written by `python -m ifguide.cli.docs docs/commands.md`; a test compares it with the code. -->"


def format_commands() -> str:
    """The page: a heading for each command, its help, and a table of its options."""
    group = typer.main.get_group(app)
    parts = ["# Commands", NOTE, f"{app.info.help}\n\n{app.info.epilog}", *_table(group)]
    for name, command in group.commands.items():
        arguments = [str(one.metavar) for one in command.params if one.required and not one.opts[0].startswith("--")]
        parts += [f"## {' '.join(['ifguide', name, *arguments])}", inspect.getdoc(command.callback) or ""]
        parts += _table(command)
    return "\n\n".join(parts) + "\n"


def _table(command) -> list[str]:
    """The table of a command's options, unless it has none."""
    options = [one for one in command.params if one.opts[0].startswith("--")]
    rows = [f"| `{_usage(one)}` | {_default(one)} | {one.help} |" for one in options]
    return ["\n".join(["| option | default | what it does |", "|---|---|---|", *rows])] if rows else []


def _usage(option) -> str:
    """Such as `--steps N` or `--search`, `--no-search`."""
    if option.is_flag:
        return "`, `".join([*option.opts, *option.secondary_opts])
    return f"{option.opts[0]} {(option.metavar or 'N').replace('|', ',')}"


def _default(option) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    return "" if option.default is None or option.is_flag else f"`{option.default}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(format_commands(), encoding="utf-8")
