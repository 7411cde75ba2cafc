"""Two models' completions to the same prompts, made comparable. No streamlit here."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ifguide.compare import Comparison
from ifguide.evaluate.statistics import TOXIC_FROM
from ifguide.ui.format import interval, number, signed, variant_note, variant_title
from ifguide.ui.palette import variant_colour

FIRST_SAMPLES = 3
"""Completions of a prompt shown before the reader asks for all."""

METRICS = (
    (
        "emt",
        "Expected max. toxicity",
        3,
        "EMT: for each prompt the highest toxicity among its completions, averaged over prompts. Lower is better.",
    ),
    (
        "tp",
        "Toxic prompts",
        3,
        f"TP: share of prompts with at least one completion rated {TOXIC_FROM} or more. Lower is better.",
    ),
    ("mean_toxicity", "Mean toxicity", 3, "Toxicity averaged over all completions. Lower is better."),
    (
        "perplexity",
        "Perplexity",
        2,
        "On harmless held-out text: how surprised the model is by normal language. Lower is better.",
    ),
    (
        "distinct_1",
        "Distinct words",
        3,
        "Different words as a share of all words of the completions. Much lower than the base model's means duller text.",
    ),
    ("distinct_2", "Distinct pairs", 3, "Different word pairs as a share of all word pairs of the completions."),
    (
        "repetition",
        "Repetition",
        3,
        "Share of four-word runs that repeat an earlier one in the same completion. Near 1 means the model loops.",
    ),
)
"""Key in metrics.json, title, decimals, explanation."""
HEADLINE = ("emt", "tp", "perplexity")


def metric_table(metrics: dict[str, dict], keys: tuple[str, ...] | None = None) -> tuple[list[dict], list[dict]]:
    """Columns and rows of the table of models: each number with its 95% interval below, where there is one."""
    chosen = [
        m
        for m in METRICS
        if (keys is None or m[0] in keys) and any(values.get(m[0]) is not None for values in metrics.values())
    ]
    columns = [{"label": "Model", "kind": "titled"}]
    columns += [{"label": title, "kind": "interval", "help": note} for _, title, _, note in chosen]
    rows = []
    for name, values in metrics.items():
        cells = [[variant_title(name), variant_note(name), variant_colour(name)]]
        for key, _, digits, _ in chosen:
            cells.append(
                [number(values.get(key), digits), interval(values.get(f"{key}_low"), values.get(f"{key}_high"), digits)]
            )
        rows.append({"key": name, "cells": cells})
    return columns, rows


def difference_row(left: dict, right: dict, difference: Comparison) -> dict:
    """The table's last row: right minus left, with the interval of the paired difference where there is one."""
    cells: list = [["Difference", "Second minus first, on the same prompts.", ""]]
    for key, _, digits, _ in METRICS:
        if left.get(key) is None and right.get(key) is None:
            continue
        drop = getattr(difference, key, None)  # a drop from left to right; the table shows the change
        if drop is not None:
            cells.append([signed(-drop.value, digits), f"{signed(-drop.high, digits)} – {signed(-drop.low, digits)}"])
        elif left.get(key) is None or right.get(key) is None:
            cells.append(["–", ""])
        else:
            cells.append([signed(right[key] - left[key], digits), ""])
    return {"key": "difference", "cells": cells}


@dataclass(frozen=True)
class Shift:
    """How the worst completion of the prompts changed."""

    prompts: np.ndarray
    """int64 (P,), prompt indexes that both models completed, largest change first."""
    left: np.ndarray
    """float64 (P,), highest toxicity of the left model."""
    right: np.ndarray
    """float64 (P,), of the right one."""


def compare_prompts(left: pd.DataFrame, right: pd.DataFrame, *, order: str = "largest") -> Shift:
    """Pair the models' completions prompt by prompt.

    Args:
        left: samples of one model, columns prompt_index, toxicity.
        right: samples of the other.
        order: `largest` (change in either direction), `better` (drops first), `worse` (rises first) or `prompt`.
    """
    highest = pd.concat(
        [left.groupby("prompt_index")["toxicity"].max(), right.groupby("prompt_index")["toxicity"].max()],
        axis=1,
        join="inner",
    )
    prompts, a, b = highest.index.to_numpy(), highest.iloc[:, 0].to_numpy(), highest.iloc[:, 1].to_numpy()
    rank = {"largest": -np.abs(b - a), "better": b - a, "worse": a - b, "prompt": np.zeros(len(a))}[order]
    sequence = np.lexsort((prompts, rank))
    return Shift(prompts[sequence], a[sequence], b[sequence])


def pairs_payload(
    left: pd.DataFrame, right: pd.DataFrame, shift: Shift, rows: slice, *, names: tuple[str, str], veil: bool
) -> dict:
    """One page of prompts for the side-by-side component, completions with the highest toxicity first."""
    pairs = []
    for prompt, a, b in zip(shift.prompts[rows], shift.left[rows], shift.right[rows], strict=True):
        mine = [frame[frame["prompt_index"] == prompt] for frame in (left, right)]
        pairs.append(
            {
                "key": int(prompt),
                "prompt": mine[0]["prompt"].iloc[0],
                "change": f"highest {a:.2f} → {b:.2f}",
                "sides": [_side(frame) for frame in mine],
            }
        )
    titles = [variant_title(name) for name in names]
    return {
        "titles": titles,
        "colours": [variant_colour(name) for name in names],
        "pairs": pairs,
        "first": FIRST_SAMPLES,
        "veil": veil,
    }


def _side(samples: pd.DataFrame) -> dict:
    ordered = samples.sort_values(["toxicity", "sample_index"], ascending=[False, True])
    rated = zip(ordered["completion"], ordered["toxicity"], strict=True)
    return {
        "highest": f"{ordered['toxicity'].max():.2f}",
        "samples": [[text, f"{toxicity:.2f}", bool(toxicity >= TOXIC_FROM)] for text, toxicity in rated],
    }
