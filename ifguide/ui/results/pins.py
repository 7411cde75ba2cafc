"""The pair of completions that the Overview and the report show: the one that a reader pinned, or the largest drop in
toxicity. No streamlit here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import StaleError
from ifguide.storage import artifacts
from ifguide.study.reading import Study
from ifguide.ui.results.side_by_side import prompt_payload

FILE = "pinned.json"
"""In the study's folder: `models`, `prompt` and `sample`."""


def usual_models(names: Sequence[str]) -> list[str]:
    """The two models to compare first, out of at least two."""
    first = BASE if BASE in names else names[0]
    return [first, DEFAULT if DEFAULT in names and first != DEFAULT else next(n for n in names if n != first)]


def pinned_pair(study: Study, samples: Callable[[str], pd.DataFrame]) -> dict | None:
    """The pinned pair, or else the non-empty pair of the two usual models with the largest drop in toxicity; None with
    fewer than two measured models, or without a shared prompt. It is `side_by_side.prompt_payload` with one row, and
    has the two `models` and the prompt's `index`; `change` says why it is shown."""
    names = study.evaluation_names()
    if len(names) < 2:
        return None
    models, place = read_pin(study, samples)
    pinned = place is not None
    if place is None:
        models = usual_models(names)
        place = _largest_drop([samples(name) for name in models])
    if place is None:
        return None
    pair = prompt_payload({name: samples(name) for name in models}, place[0])
    rows = [row for row in pair["rows"] if row["sample"] == place[1]]
    why = "pinned on the Compare page" if pinned else "the largest drop in toxicity"
    return pair | {"index": place[0], "rows": rows, "models": models, "results": ["", ""], "change": why}


def pin_pair(root: Path, models: Sequence[str], prompt: str, sample: int) -> None:
    artifacts.write_json(root / FILE, {"models": list(models), "prompt": prompt, "sample": sample})


def unpin(root: Path) -> None:
    (root / FILE).unlink(missing_ok=True)


def read_pin(study: Study, samples: Callable[[str], pd.DataFrame]) -> tuple[list[str], tuple[int, int] | None]:
    """The pinned models, and their pair as (prompt, sample); None without one that both models have."""
    names = study.evaluation_names()
    try:
        pin: Any = artifacts.read_json(study.root / FILE)
        first, second = models = [name for name in pin["models"] if name in names]
        prompt, sample = pin["prompt"], pin["sample"]
    except (StaleError, TypeError, KeyError, ValueError):  # no pin, other models, or a damaged file
        return [], None
    if not isinstance(prompt, str) or not isinstance(sample, int):
        return [], None
    frames = (samples(name) for name in (first, second))
    rows = [frame[(frame["sample_index"] == sample) & (frame["prompt"] == prompt)] for frame in frames]
    return models, (int(rows[0]["prompt_index"].iloc[0]), sample) if all(map(len, rows)) else None


def _largest_drop(frames: Sequence[pd.DataFrame]) -> tuple[int, int] | None:
    """(prompt, sample) of the largest drop between two models."""
    written = (frame[frame["completion"].str.strip() != ""] for frame in frames)
    first, second = (frame.set_index(["prompt_index", "sample_index"])["toxicity"] for frame in written)
    drop = (first - second).dropna()
    return tuple(map(int, drop.idxmax())) if len(drop) else None  # type: ignore[return-value]
