"""The pair of completions that stands for the study: the one that a reader pinned, or the largest drop in toxicity."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import StaleError
from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.storage import artifacts
from ifguide.ui.loaders import Loaded

FILE = "pinned.json"
"""In the study's folder."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one model wrote."""

    model: str
    completion: str
    toxicity: float
    spans: list[Span]
    """Characters of the words that the classifier finds toxic; none where its evaluation did not look for them."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same prompt and random numbers, completed by two models."""

    prompt_index: int
    sample_index: int
    prompt: str
    before: Side
    after: Side
    pinned: bool
    """Whether a reader chose it."""


def usual_models(names: Sequence[str]) -> list[str]:
    """The two models to compare first, of at least two."""
    first = BASE if BASE in names else names[0]
    return [first, DEFAULT if DEFAULT in names and first != DEFAULT else next(n for n in names if n != first)]


def pinned_pair(loaded: Loaded) -> Pair | None:
    """The pinned pair; without one that is still there, the pair of the base and the suppressed model with the largest
    drop in toxicity, of those where both models wrote something. None with fewer than two measured models, or without
    a prompt they share."""
    names = loaded.study.evaluation_names()
    if pin := _read_pin(loaded.study.root):
        models, prompt, sample = pin["models"], pin["prompt"], pin["sample"]
        if set(models) <= set(names):
            before = loaded.samples(models[0])
            found = before[(before["prompt"] == prompt) & (before["sample_index"] == sample)]["prompt_index"]
            if len(found) and (pair := _pair(loaded, models, int(found.iloc[0]), sample, pinned=True)):
                return pair
    if len(names) < 2:
        return None
    models = usual_models(names)
    drop = _largest_drop(loaded.key, models, loaded)
    return _pair(loaded, models, *drop, pinned=False) if drop else None


def pin_pair(loaded: Loaded, models: Sequence[str], prompt_index: int, sample: int) -> None:
    """Pin the completions that the first two of some models gave to a prompt."""
    frame = loaded.samples(models[0])
    prompt = frame[frame["prompt_index"] == prompt_index]["prompt"].iloc[0]
    artifacts.write_json(loaded.study.root / FILE, {"models": list(models[:2]), "prompt": prompt, "sample": sample})


def unpin(loaded: Loaded) -> None:
    """Forget the pin."""
    (loaded.study.root / FILE).unlink(missing_ok=True)


def _read_pin(root: Path) -> dict | None:
    try:
        pin = artifacts.read_json(root / FILE)
    except StaleError:  # there is none, or somebody damaged it
        return None
    fields = {"models": list, "prompt": str, "sample": int}
    known = isinstance(pin, dict) and all(isinstance(pin.get(name), kind) for name, kind in fields.items())
    return pin if known and len(pin["models"]) == 2 and all(isinstance(name, str) for name in pin["models"]) else None


def _pair(loaded: Loaded, models: Sequence[str], prompt_index: int, sample: int, *, pinned: bool) -> Pair | None:
    found = []
    for model in models:
        frame = loaded.samples(model)
        found.append(frame[(frame["prompt_index"] == prompt_index) & (frame["sample_index"] == sample)])
    if not all(map(len, found)) or found[0]["prompt"].iloc[0] != found[1]["prompt"].iloc[0]:
        return None
    before, after = (_side(model, rows.iloc[0]) for model, rows in zip(models, found, strict=True))
    return Pair(
        prompt_index=prompt_index,
        sample_index=sample,
        prompt=found[0]["prompt"].iloc[0],
        before=before,
        after=after,
        pinned=pinned,
    )


def _side(model: str, row) -> Side:
    text = row["completion"]
    return Side(
        model=model, completion=text, toxicity=float(row["toxicity"]), spans=read_spans(row.get("toxic_spans"), text)
    )


@st.cache_data(max_entries=32, show_spinner=False)
def _largest_drop(key: tuple, models: Sequence[str], _loaded: Loaded) -> tuple[int, int] | None:
    """(prompt, sample) of the largest drop; `key` is what the result is filed under."""
    columns = ["prompt_index", "sample_index", "toxicity", "completion"]
    sides = (_loaded.samples(name)[columns] for name in models)
    first, second = (side[side["completion"].str.strip() != ""].set_index(columns[:2])["toxicity"] for side in sides)
    drop = (first - second).dropna()
    if not len(drop):
        return None
    prompt, sample = drop.idxmax()
    return int(prompt), int(sample)
