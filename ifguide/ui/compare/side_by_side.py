"""One prompt with the completions of several models, a row a sample. No streamlit here."""

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter

import pandas as pd

from ifguide.data.words import WRITTEN_WORD
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.evaluation.toxic_spans import Span, read_spans
from ifguide.ui.format import number

_PIECE = re.compile(rf"{WRITTEN_WORD.pattern}|\s+|[^\w\s]")

Samples = Mapping[str, pd.DataFrame]
"""Model -> its completions, the first one first."""
Runs = list[tuple[str, bool]]
"""A text cut into runs, each with whether it is in this text only; joined, they are the text."""


def prompt_texts(samples: pd.DataFrame) -> dict[int, str]:
    """Prompt index -> the prompt."""
    once = samples.drop_duplicates("prompt_index")
    return dict(zip(once["prompt_index"].tolist(), once["prompt"].tolist(), strict=True))


def prompt_payload(
    samples: Samples,
    prompt: int,
    *,
    by_toxicity: bool = True,
    differ: bool = False,
    ratings: bool = True,
    spans: bool = False,
) -> dict:
    """One prompt with its completions for the side-by-side component: a row for each sample, a cell for each model.

    Sample k of every model was drawn with the same random seed, so they share a row. `change` is each model's highest
    toxicity for the prompt, in the models' order.

    Args:
        samples: of each model.
        prompt: its index.
        by_toxicity: rows with the highest toxicity of any model first; otherwise in the order they were drawn.
        differ: mark the words that a completion does not share with the first model's.
        ratings: give each completion's toxicity.
        spans: mark the toxic words of each completion, where its evaluation looked for them.
    """
    sides = [
        frame[frame["prompt_index"] == prompt].set_index("sample_index").sort_index() for frame in samples.values()
    ]
    numbers = sorted(set().union(*(side.index for side in sides)))
    if by_toxicity:
        worst = {n: max(float(side.at[n, "toxicity"]) for side in sides if n in side.index) for n in numbers}
        numbers.sort(key=lambda n: (-worst[n], n))
    rows = []
    for n in numbers:
        texts = [side.at[n, "completion"] if n in side.index else None for side in sides]
        plain = [None if text is None else [[text, False]] for text in texts]
        runs = mark_differences(texts, pairwise=len(sides) == 2) if differ else plain
        cells: list[dict | None] = []
        for side, run in zip(sides, runs, strict=True):
            if run is None:
                cells.append(None)
                continue
            shown, rated = cut_runs(run, spans_of(side, n)) if spans else run, float(side.at[n, "toxicity"])
            rating = {"toxicity": number(rated, 2), "high": rated >= TOXIC_FROM}
            cells.append({"runs": shown, **(rating if ratings else {"toxicity": "", "high": False})})
        rows.append({"sample": int(n), "cells": cells})
    highest = [number(float(side["toxicity"].max()) if len(side) else None, 2) for side in sides]
    return {
        "prompt": next(side["prompt"].iloc[0] for side in sides if len(side)),
        "highest": highest if ratings else [""] * len(sides),
        "change": f"highest {' → '.join(highest)}" if ratings else "",
        "rows": rows,
    }


def spans_of(side: pd.DataFrame, row) -> list[Span]:
    """The toxic spans of a row's completion; none where its evaluation did not look for them."""
    return read_spans(side.at[row, "toxic_spans"], side.at[row, "completion"]) if "toxic_spans" in side else []


def cut_runs(runs: Sequence[Sequence], spans: Sequence[Span]) -> list[list]:
    """Runs of `diff_words` cut where a toxic span begins or ends, each with its span as `START-END`, or an empty
    string. Spans are ascending, apart, in characters of the joined text."""
    edges = sorted({place for span in spans for place in span})
    names = {start: f"{start}-{end}" for start, end in spans}
    cut, at, name = [], 0, ""
    for text, only in runs:
        stop = at + len(text)
        for end in [*(edge for edge in edges if at < edge < stop), stop]:
            name = names.get(at, "" if at in edges else name)
            cut.append([text[len(text) - (stop - at) : len(text) - (stop - end)], only, name])
            at = end
    return cut


def mark_differences(texts: Sequence[str | None], *, pairwise: bool) -> list[list | None]:
    """Completions as runs of text, each with whether its words are in this one only, not in the first; `pairwise` marks
    the first too. None where there is none."""
    first = texts[0]
    marked: list[list | None] = [None if text is None else [[text, False]] for text in texts]
    for i, text in enumerate(texts[1:], 1):
        if first is None or text is None:
            continue
        mine, theirs = diff_words(first, text)
        marked[i] = [list(run) for run in theirs]
        if pairwise:
            marked[0] = [list(run) for run in mine]
    return marked


def diff_words(first: str, other: str) -> tuple[Runs, Runs]:
    """Mark what two texts do not share: words and punctuation are compared literally, in order; white space is not."""
    pieces = _PIECE.findall(first), _PIECE.findall(other)
    places = [[i for i, piece in enumerate(side) if not piece.isspace()] for side in pieces]
    words = [[side[i] for i in at] for side, at in zip(pieces, places, strict=True)]
    shared: tuple[set[int], set[int]] = (set(), set())
    for a, b, size in SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks():
        shared[0].update(places[0][a : a + size])
        shared[1].update(places[1][b : b + size])
    return _runs(pieces[0], shared[0]), _runs(pieces[1], shared[1])


def _runs(pieces: list[str], shared: set[int]) -> Runs:
    """Neighbours of one kind together; white space is marked only between marked words."""
    marked = [i not in shared and not piece.isspace() for i, piece in enumerate(pieces)]
    for i, piece in enumerate(pieces):
        if piece.isspace():
            marked[i] = 0 < i < len(pieces) - 1 and marked[i - 1] and marked[i + 1]
    together = groupby(zip(pieces, marked, strict=True), key=itemgetter(1))
    return [("".join(piece for piece, _ in run), mark) for mark, run in together]
