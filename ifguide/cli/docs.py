"""The commands as one Markdown page, made from the code: `python -m ifguide.cli.docs docs/commands.md`."""

import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from enum import EnumMeta
from pathlib import Path

import typer

from ifguide.cli.main import app, options

NOTE = "<!-- Written by `python -m ifguide.cli.docs docs/commands.md`; a test compares it with the code. -->"


def read_commands() -> dict[str, Callable]:
    """Every command and its function, in the order of `ifguide --help`."""
    found = {info.name or getattr(info.callback, "__name__", ""): info.callback for info in app.registered_commands}
    return {name: callback for name, callback in found.items() if callback}


def format_commands() -> str:
    """The page: a heading for each command, its help, and a table of its options."""
    parts = ["# Commands", NOTE, f"{app.info.help}\n\n{app.info.epilog}", *_table(options)]
    for name, function in read_commands().items():
        argument = " NAME" if "name" in inspect.signature(function).parameters else ""
        parts += [f"## ifguide {name}{argument}", inspect.getdoc(function) or "", *_table(function)]
    return "\n\n".join(parts) + "\n"


def _table(function: Callable) -> list[str]:
    """The table of a command's options, unless it has none."""
    rows = [f"| `{_usage(*option)}` | {_default(*option)} | {option[-1].help} |" for option in _options(function)]
    return ["\n".join(["| option | default | what it does |", "|---|---|---|", *rows])] if rows else []


def _options(function: Callable) -> Iterator[tuple[inspect.Parameter, object, typer.models.OptionInfo]]:
    """Each visible option of a command: its parameter, its type and what Typer knows of it."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        for info in getattr(hints[name], "__metadata__", ()):
            if isinstance(info, typer.models.OptionInfo) and not info.hidden:
                kind = typing.get_args(hints[name])[0]
                yield parameter, (typing.get_args(kind) or (kind,))[0], info


def _usage(parameter: inspect.Parameter, kind: object, info: typer.models.OptionInfo) -> str:
    """Such as `--steps N` or `--what tokens,mask`."""
    names = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
    name = names[0] if names else f"--{parameter.name.replace('_', '-')}"
    if kind is bool:
        return name.replace("/", "`, `")
    return f"{name} {info.metavar or (','.join(kind) if isinstance(kind, EnumMeta) else 'N')}"


def _default(parameter: inspect.Parameter, kind: object, info: typer.models.OptionInfo) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    if isinstance(info.show_default, str):
        return info.show_default
    return "" if parameter.default is None or kind is bool else f"`{parameter.default}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(format_commands(), encoding="utf-8")
