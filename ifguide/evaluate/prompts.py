"""Prompts and held-out texts from files: everything `ifguide.readers` reads, and BOLD's nested JSON. No torch."""

import json
from collections.abc import Iterator
from pathlib import Path

from ifguide.config import EvaluateConfig
from ifguide.errors import InputError
from ifguide.readers import check_text, list_files, read_texts


def read_prompts(path: str | Path, config: EvaluateConfig) -> list[str]:
    """The prompts of a file or folder, in their order; blank ones are left out.

    Takes a column of any format of `ifguide.readers` (a cell like RealToxicityPrompts' `{"text": ...}` counts as its text), and
    .json files like BOLD's, in which lists of texts lie inside named groups: `{"group": {"person": ["text", ...]}}`.

    Args:
        path: where.
        config: `prompt_field` names the column, `n_prompts` limits the number (0 takes all).

    Raises:
        InputError: no such file or column, something that is not text, or no prompt at all.
    """
    return _read(str(path), config.prompt_field, config.n_prompts)


def read_heldout(path: str | Path, config: EvaluateConfig) -> list[str]:
    """The benign texts of a file or folder, as `read_prompts` with `text_field` and `n_heldout`."""
    return _read(str(path), config.text_field, config.n_heldout)


def _read(path: str, field: str, limit: int) -> list[str]:
    nested = _read_nested(path, field)
    if nested is None:
        return read_texts(path, field, limit=limit)
    texts = [text for text in nested if text.strip()]
    if not texts:
        raise InputError(f"{path} holds no text; name another file")
    return texts[: limit or None]


def _read_nested(path: str, field: str) -> list[str] | None:
    """The texts of nested .json files; None if these are not such files."""
    place = Path(path).expanduser()
    files = list_files(path) if place.exists() else []
    if not files or any(file.suffix.lower() != ".json" for file in files):
        return None
    texts = []
    for file in files:
        try:
            value = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError:  # JSON lines, or broken: the general reader names the line
            return None
        if (
            not isinstance(value, dict)
            or field in value
            or not all(isinstance(group, dict | list) for group in value.values())
        ):
            return None
        texts += _leaves(value, str(file))
    return texts


def _leaves(value, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(child, f"{where}, {name}")
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child, where)
    else:
        yield check_text(value, where, "a list of texts")
