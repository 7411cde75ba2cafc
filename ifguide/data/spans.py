"""Known toxic spans: character ranges [start, end) in a document, in code points. They judge results, they never
compute them."""

import ast
import json
from contextlib import suppress

import numpy as np

from ifguide.errors import InputError

_FORMS = "[[start, end), ...], [{'start': 0, 'end': 3}, ...] or a list of character indices"


def parse_spans(value, n_characters: int, where: str, field: str) -> tuple[tuple[int, int], ...]:
    """Read spans in any of the usual forms and merge those that touch.

    Args:
        value: a list of [start, end) pairs, of {"start", "end"} objects, or of character indices (SemEval's form), or
            any of these written as text, as in a CSV; None or empty text means no spans.
        n_characters: length of the document's text.
        where, field: the row's place and the column's name, for errors.

    Returns:
        Sorted ranges that neither overlap nor touch.

    Raises:
        InputError: another form, or a span outside the text.
    """
    items = _parse(value, where, field)
    if not isinstance(items, list | tuple):
        raise InputError(f"{where}: expected spans in {field!r} as {_FORMS}, got {items!r}")
    merged: list[list[int]] = []
    for start, end in sorted(_range(item, where, field) for item in items):
        if not 0 <= start < end <= n_characters:
            wrong = f"the span {start} to {end} in {field!r} is not inside the text of {n_characters} characters"
            raise InputError(f"{where}: {wrong}; count in characters from 0, ends excluded")
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return tuple((start, end) for start, end in merged)


def mark_tokens(text: str, spans: tuple, char_start: np.ndarray, char_end: np.ndarray) -> np.ndarray:
    """Which tokens, bool (n,), have a character that is inside a span (see `parse_spans`) and is not white space.
    `char_start` and `char_end`, int (n,), are the tokenizer's offsets in characters, ends excluded. A token without
    characters is in no span; of several tokens inside one character, all are."""
    if not spans:
        return np.zeros(len(char_start), dtype=bool)
    inside = np.zeros(len(text) + 1, dtype=np.int64)
    for start, end in spans:
        inside[start + 1 : end + 1] = [not character.isspace() for character in text[start:end]]
    before = np.cumsum(inside)  # before[c]: marked characters among the first c
    return before[np.minimum(char_end, len(text))] > before[np.minimum(char_start, len(text))]


def _parse(value, where: str, field: str):
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if not isinstance(value, str):
        return value
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    try:  # SemEval writes Python; literal_eval runs nothing
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"{where}: expected spans in {field!r} as {_FORMS}, got the text {value[:80]!r}") from error


def _range(item, where: str, field: str) -> tuple[int, int]:
    if _whole(item):
        return item, item + 1
    if isinstance(item, dict) and "start" in item and "end" in item:
        item = (item["start"], item["end"])
    if isinstance(item, list | tuple) and len(item) == 2 and all(map(_whole, item)):
        return item[0], item[1]
    raise InputError(f"{where}: expected spans in {field!r} as {_FORMS}, found {item!r} in it")


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
