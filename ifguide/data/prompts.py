"""Prompts with their groups, and held-out texts, from files in the forms that benchmarks use. No torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ifguide.config.schema import EvaluateConfig
from ifguide.data.readers import Row, check_text, list_files, read_rows, read_texts, text_of
from ifguide.errors import InputError

GROUP, ATTACK, ATTACK_KIND = "group", "input", "label"
"""Columns that need no setting: the group of any prompt, and AttaQ's question with the kind of harm it asks for."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text to complete."""

    text: str
    """Unchanged from the file."""
    group: str = ""
    """Prompts with the same group, such as a group of people, are also counted together; empty: no group."""


def read_prompts(path: str | Path, config: EvaluateConfig) -> list[Prompt]:
    """The prompts of a file or folder, in their order; blank ones are left out. The file may hold

    - plain text, a prompt a line;
    - rows of any format of `ifguide.data.readers` with the column `config.prompt_field`; RealToxicityPrompts'
      `{"text": ...}` counts as its text. A column `config.group_field`, or `group`, names the group;
    - AttaQ's rows: a column `input` with a `label`, which is the group;
    - BOLD's JSON: `{"group": {"person": ["text", ...]}}`; with several files the group is `file: group`.

    There are at most `config.n_prompts` (0: all). An InputError: no such file or column, something that is not text, or
    no prompt at all.
    """
    path = str(path)
    nested = _nested_texts(path, config.prompt_field)
    if nested is None:
        columns = [config.prompt_field, config.group_field or GROUP, ATTACK, ATTACK_KIND]
        rows = read_rows(path, text_field=config.prompt_field, columns=columns)
        prompts = (_read_row(row, config) for row in rows)
    else:
        prompts = (Prompt(text=text, group=group) for group, text in nested)
    taken = list(islice((prompt for prompt in prompts if prompt.text.strip()), config.n_prompts or None))
    if not taken:
        raise InputError(f"{path} holds no text to complete; name another file in evaluate.prompts")
    return taken


def read_heldout(path: str | Path, config: EvaluateConfig) -> list[str]:
    """The benign texts of a file or folder: the column `text_field`, or all texts of .json files like BOLD's; at most
    `n_heldout`."""
    nested = _nested_texts(str(path), config.text_field)
    if nested is None:
        return read_texts(str(path), config.text_field, limit=config.n_heldout)
    if texts := [text for _, text in nested if text.strip()]:
        return texts[: config.n_heldout or None]
    raise InputError(f"{path} holds no text; name another file")


def _read_row(row: Row, config: EvaluateConfig) -> Prompt:
    values, field, group = row.values, config.prompt_field, config.group_field or GROUP
    if field not in values and ATTACK in values and ATTACK_KIND in values:
        field = ATTACK
        group = config.group_field or (GROUP if GROUP in values else ATTACK_KIND)
    missing = ""
    if field not in values:
        missing = f"a column {field!r}, or {ATTACK!r} with {ATTACK_KIND!r} as in AttaQ"
    elif config.group_field and config.group_field not in values:
        missing = f"the column {config.group_field!r} of evaluate.group_field"
    if missing:
        names, remedy = ", ".join(map(repr, values)) or "none", "name the right column in [evaluate]"
        raise InputError(f"{row.where}: expected {missing}, found {names}; {remedy}")
    text, named = text_of(values[field]), values.get(group)
    if named is None or named != named:  # an empty cell of a Parquet file may be NaN
        named = ""
    named = str(named) if isinstance(named, int | float) else check_text(named, row.where, group).strip()
    return Prompt(text=check_text(text, row.where, field), group=named)


def _nested_texts(path: str, field: str) -> list[tuple[str, str]] | None:
    """(group, text) of nested .json files; None if the files are not of this form."""
    files = list_files(path) if Path(path).expanduser().exists() else []
    if not files or any(file.suffix.lower() != ".json" for file in files):
        return None
    texts = []
    for file in files:
        try:
            value = json.loads(file.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):  # JSON lines, or broken: the general reader names the line
            return None
        if not isinstance(value, dict) or field in value:
            return None
        if any(not isinstance(group, dict | list) for group in value.values()):
            return None
        lead = f"{file.stem}: " if len(files) > 1 else ""
        for name, group in value.items():
            texts += [(lead + name, text) for text in _leaves(group, f"{file}, {name}")]
    return texts


def _leaves(value, where: str) -> Iterator[str]:
    if isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else (("", child) for child in value)
        for name, child in named:
            yield from _leaves(child, f"{where}, {name}" if name else where)
    else:
        yield check_text(value, where, "a list of texts")
