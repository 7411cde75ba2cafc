"""A saved selection of tokens, written to a folder and read back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifguide.data.by_document import token_parts
from ifguide.storage import artifacts

_ARRAYS = ("mask", "order", "count_above", "sum_above", "rank_score")


@dataclass(frozen=True)
class Selection:
    """A saved choice of tokens."""

    name: str
    settings: dict
    """What made it: kind, attribution, tokens_above, window, max_tokens. What follows: quantile, threshold, counts."""
    mask: np.ndarray
    """bool (N,), one value a corpus token."""
    order: np.ndarray
    """int64 (D,), document indexes, best rank first."""
    count_above: np.ndarray
    """int64 (D,), tokens above the threshold."""
    sum_above: np.ndarray
    """float64 (D,), sum of their scores."""
    rank_score: np.ndarray
    """float64 (D,), harmonic mean of the two after min-max normalisation."""


def write_selection(selection: Selection, folder: Path) -> None:
    """Write a selection's arrays and settings into a folder."""
    for key in _ARRAYS:
        artifacts.save_blocks(_blocks(getattr(selection, key)), folder / f"{key}.npy", getattr(selection, key).dtype)
    (folder / "selection.json").write_text(json.dumps(selection.settings, indent=1), encoding="utf-8")


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array (n,) piece by piece; the pages of a memory map are released once they are written."""
    return (array[part] for part in token_parts(len(array), array))


def read_selection(name: str, folder: Path) -> Selection:
    """Read a selection, its arrays memory-mapped. One of an earlier version has no `tokens_above`: its hits say it."""
    arrays = {key: artifacts.load_array(folder / f"{key}.npy") for key in _ARRAYS}
    settings = artifacts.read_part(folder, "selection.json")
    if "tokens_above" not in settings:
        settings["tokens_above"] = None if settings.get("quantile") is None else int(arrays["count_above"].sum())
    return Selection(name, settings, **arrays)
