"""A prompt with the completions of several models, a row for each sample. No streamlit here."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.ui.format import number

Samples = Mapping[str, pd.DataFrame]
"""Model -> its completions; the others are compared with the first model."""


def prompt_texts(samples: pd.DataFrame) -> dict[int, str]:
    once = samples.drop_duplicates("prompt_index")
    return dict(zip(once["prompt_index"].tolist(), once["prompt"].tolist(), strict=True))


def prompt_payload(samples: Samples, prompt: int, *, by_toxicity: bool = True, ratings: bool = True) -> dict:
    """A prompt with its completions for the side-by-side component: a row for each sample, which every model drew with
    the same random seed, and a cell for each model. `change` is each model's highest toxicity. Rows are sorted
    `by_toxicity`, the highest of any model first, or as drawn; without `ratings` no toxicity is given."""
    sides = [
        frame[frame["prompt_index"] == prompt].set_index("sample_index").sort_index() for frame in samples.values()
    ]
    numbers = sorted(set().union(*(side.index for side in sides)))
    if by_toxicity:
        worst = {n: max(float(side.at[n, "toxicity"]) for side in sides if n in side.index) for n in numbers}
        numbers.sort(key=lambda n: (-worst[n], n))
    rows = []
    for n in numbers:
        cells = [completion_cell(side.loc[n], ratings=ratings) if n in side.index else None for side in sides]
        rows.append({"sample": int(n), "cells": cells})
    highest = [number(float(side["toxicity"].max()) if len(side) else None, 2) for side in sides]
    return {
        "prompt": next(side["prompt"].iloc[0] for side in sides if len(side)),
        "highest": highest if ratings else [""] * len(sides),
        "change": f"highest {' → '.join(highest)}" if ratings else "",
        "rows": rows,
    }


def completion_cell(sample: Mapping, *, ratings: bool = True) -> dict:
    """A completion for the component: its `runs` of text, each with the toxic span it is (`START-END`) or nothing; its
    rating; and whether it is toxic as a `whole`, without known toxic words. `sample` has `completion`, `toxicity` and,
    if the evaluation searched for them, `toxic_spans`."""
    text, toxic = sample["completion"], bool(sample["toxicity"] >= TOXIC_FROM)
    spans = read_spans(sample.get("toxic_spans"), text)
    cell = {"runs": cut_runs(text, spans), "whole": toxic and not spans, "high": toxic and ratings}
    return {**cell, "toxicity": number(float(sample["toxicity"]), 2) if ratings else ""}


def offensive_spans(sample: Mapping) -> list[Span]:
    """The part of a completion to blur with offensive words: its toxic spans, or all of a toxic one without any."""
    text = sample["completion"]
    spans = read_spans(sample.get("toxic_spans"), text)
    return spans or ([(0, len(text))] if sample["toxicity"] >= TOXIC_FROM else [])


def cut_runs(text: str, spans: Sequence[Span]) -> list[list[str]]:
    """A text cut at the ends of its spans, which ascend and do not overlap: pieces, each with its span as
    `START-END`."""
    runs, at = [], 0
    for start, end in spans:
        runs += [[text[at:start], ""], [text[start:end], f"{start}-{end}"]]
        at = end
    return [run for run in [*runs, [text[at:], ""]] if run[0]]
