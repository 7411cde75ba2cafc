"""Token probabilities under several models -> what the token viewer draws. No streamlit here."""

from collections.abc import Container, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ifguide.evaluation.toxic_spans import Span
from ifguide.ui.documents.token_view import HIDDEN
from ifguide.ui.format import column, count_of, model_cell, number
from ifguide.ui.palette import LIKELIHOOD_BINS

TOP_QUANTILE = 0.98
"""The colour is strongest from this quantile of the absolute values of all completions of the prompt."""


def choices(titles: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """From the models' titles by name: a choice's title -> (model, model to compare it with or empty). Differences from
    the first model, then each model alone."""
    first, *others = titles
    differences = {f"{titles[name]} minus {titles[first]}": (name, first) for name in others}
    return differences | {f"Surprise of {title}": (name, "") for name, title in titles.items()}


def layer_values(log_probability: Mapping[str, Sequence[float]], choice: tuple[str, str]) -> np.ndarray:
    """The numbers that colour one completion's tokens, float64 (n,), in nats: for two models the difference, positive
    if the token is likelier to the first; for one model the surprise, minus its log-probability."""
    model, against = choice
    values = np.asarray(log_probability[model], dtype=np.float64)
    return values - np.asarray(log_probability[against], dtype=np.float64) if against else -values


def viewer_payload(
    likelihoods: dict,
    sample: int,
    titles: Mapping[str, str],
    chosen: str,
    colours: Mapping[str, str],
    memory: str,
    offensive: Mapping[str, Sequence[Span]],
) -> dict:
    """One sample of every model for the component: `likelihoods` from `read_likelihoods`, coloured by `chosen`, a key
    of `choices(titles)`. `memory` is the browser's key for what the reader revealed; `offensive` has the characters of
    each completion that are blurred with offensive words."""
    layers = []
    for title, choice in choices(titles).items():
        values = [layer_values(completion["log_probability"], choice) for completion in likelihoods["completions"]]
        joined = np.abs(np.concatenate([np.zeros(0), *values]))
        top = max(0.01, float(np.quantile(joined, TOP_QUANTILE))) if joined.size else 1.0
        ends = ["less likely", f"likelier for {titles[choice[0]]}"] if choice[1] else ["expected", "surprising"]
        layer = {"name": title, "title": title, "note": "", "top": top, "unit": "nats", "ends": ends}
        layers.append({**layer, "oneSided": not choice[1]})
    drawn = {each["model"]: each for each in likelihoods["completions"] if each["sample"] == sample}
    items = []
    for name in (name for name in titles if name in drawn):
        log_probability, pieces = drawn[name]["log_probability"], drawn[name]["pieces"]
        sums = " · ".join(f"{title} {number(sum(log_probability[model]), 1)}" for model, title in titles.items())
        items.append(
            {
                "key": f"{memory}:{name}:{sample}",
                "title": titles[name],
                "colour": colours[name],
                "texts": pieces,
                "marks": mark_pieces(pieces, offensive.get(name, ())),
                "facts": f"log-probability of all {count_of(len(pieces), 'token')}: {sums}",
                "layers": {
                    title: layer_values(log_probability, choice).tolist() for title, choice in choices(titles).items()
                },
            }
        )
    settings = {"layers": layers, "palette": LIKELIHOOD_BINS, "hasTruth": False, "selection": "", "nScored": 0}
    return {"settings": {**settings, "bare": True, "firstScored": True}, "colour": chosen, "items": items}


def mark_pieces(pieces: Sequence[str], spans: Sequence[Span]) -> list[int]:
    """`HIDDEN` for each piece of a text that shares a character with one of the spans, else 0."""
    ends = np.cumsum([0, *map(len, pieces)]).tolist()
    return [HIDDEN * any(start < b and end > a for start, end in spans) for a, b in pairwise(ends)]


def mean_table(
    likelihoods: dict, titles: Mapping[str, str], colours: Mapping[str, str], edited: Container[str] = ()
) -> tuple[list[dict], list[dict]]:
    """Mean log-probability of a token over all completions of the prompt: a row for each model that wrote, a column for
    each model that reads."""
    note = "Mean log-probability of a token for {}, in nats; closer to 0 is likelier"
    read_by = [column(title, note=note.format(title)) for title in titles.values()]
    columns = [column("Completions of", "titled"), *read_by]
    rows = []
    for writer in titles:
        mine = [c["log_probability"] for c in likelihoods["completions"] if c["model"] == writer]
        tokens = sum(len(values[writer]) for values in mine)
        means = [sum(map(sum, (values[name] for values in mine))) / tokens if tokens else None for name in titles]
        cells = [
            model_cell(writer, colours, count_of(tokens, "token"), writer in edited),
            *(number(value, 2) for value in means),
        ]
        rows.append({"key": writer, "cells": cells})
    return columns, rows
