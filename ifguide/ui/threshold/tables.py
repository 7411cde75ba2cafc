"""Rows of the Threshold page's tables: documents, words, sources, groups of people. No streamlit here."""

from collections.abc import Sequence
from functools import partial
from math import isfinite

import numpy as np
import pyarrow as pa

from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.words import WordCount
from ifguide.selection.audit import Interval
from ifguide.selection.coverage import expand_intervals
from ifguide.selection.index import Resolved
from ifguide.study.analysis.groups import GroupShare
from ifguide.ui.excerpts import excerpt_around
from ifguide.ui.format import column, count, number, score, share

MIN_FOR_LIFT = 3
"""Words selected less often come last when sorted by lift, which means little for them."""
WORDS_MOST = 400

_sorting = partial(column, sortable=True)

WORD_COLUMNS = [
    _sorting("Word", "veiled"),
    _sorting("Selected", "bar", "Occurrences with at least one selected token"),
    _sorting("Occurrences", note="Occurrences of the word in the corpus"),
    _sorting("Share", note="Share of its occurrences that is selected"),
    _sorting(
        "Lift",
        note="How many times likelier this word is selected than an average word; words selected once or"
        " twice come last",
    ),
]
VALUE_COLUMNS = [
    _sorting("Selected", "bar", "Selected tokens of these documents"),
    _sorting("Tokens", note="All their tokens that have a score"),
    _sorting("Share", note="Share of their tokens that is selected"),
    _sorting("Ratio", "interval", "That share over the share of all tokens"),
    _sorting("Documents"),
]
GROUP_COLUMNS = [
    _sorting("Group", "text"),
    _sorting("Mentions", note="Tokens of words that name the group"),
    _sorting("Selected", "bar", "Mentions that are selected"),
    _sorting("Ratio", "interval", "Share of its mentions that is selected over that of all tokens"),
    _sorting("Documents", note="Documents that mention the group"),
    column("Ratio of documents", "interval", "Share of them with a selected token over that of all documents"),
]
UNMARKED = _sorting("Not toxic", note="Selected mentions that people did not mark as toxic")
_DOCUMENT = [column("Document", "text"), column("Source", "text")]
_SELECTED = column(
    "Selected", note="Selected tokens: those above the threshold and their neighbours, within the budget"
)
RANKED_COLUMNS = [
    column("Rank", note="1 is the most toxic: many tokens above the threshold, with high scores"),
    *_DOCUMENT,
    column("Above", note="Tokens above the threshold"),
    column("Sum", "bar", "Sum of their scores"),
    _SELECTED,
    column("Around the highest selected token", "excerpt"),
]
RANGE_COLUMNS = [
    *_DOCUMENT,
    column("In range", "bar", "Tokens with a score in the chosen range"),
    _SELECTED,
    column("Around the highest token in the range", "excerpt"),
]


def word_rows(words: Sequence[WordCount]) -> list[dict]:
    """The words selected most often, and those with the highest lift, each once."""
    by_lift = sorted((w for w in words if w.selected >= MIN_FOR_LIFT), key=lambda w: (-w.lift, -w.selected, w.word))
    kept = dict.fromkeys([*words[:WORDS_MOST], *by_lift[:WORDS_MOST]])
    most, rows = max((w.selected for w in kept), default=1), []
    for w in kept:
        cells = [
            w.word,
            [count(w.selected), w.selected / most],
            count(w.occurrences),
            share(w.share),
            f"{w.lift:,.1f}×",
        ]
        lift = w.lift if w.selected >= MIN_FOR_LIFT else None
        rows.append({"key": w.word, "cells": cells, "sort": [w.word, w.selected, w.occurrences, w.share, lift]})
    return rows


def value_table(title: str, shares: Sequence[GroupShare]) -> tuple[list[dict], list[dict]]:
    """Columns, and a row for the documents with each value of the column called `title`."""
    most, rows = max((one.n_selected for one in shares), default=0) or 1, []
    for one in shares:
        part = one.n_selected / max(1, one.n_mentions)
        cells: list = [one.name, [count(one.n_selected), one.n_selected / most], count(one.n_mentions), share(part)]
        order = [one.name, one.n_selected, one.n_mentions, part, one.ratio.value, one.n_documents]
        rows.append({"key": one.name, "cells": [*cells, _ratio(one.ratio), count(one.n_documents)], "sort": order})
    return [_sorting(title, "text"), *VALUE_COLUMNS], rows


def group_table(shares: Sequence[GroupShare]) -> tuple[list[dict], list[dict]]:
    """Columns, and a row for each group."""
    most, rows = max((one.n_selected for one in shares), default=0) or 1, []
    for one in shares:
        cells: list = [one.name, count(one.n_mentions), [count(one.n_selected), one.n_selected / most]]
        cells += [_ratio(one.ratio), count(one.n_documents), _ratio(one.documents_ratio)]
        order = [one.name, one.n_mentions, one.n_selected, one.ratio.value, one.n_documents, one.documents_ratio.value]
        if one.n_unmarked is not None:
            cells.append(count(one.n_unmarked))
            order.append(one.n_unmarked)
        rows.append({"key": one.name, "cells": cells, "sort": order})
    return GROUP_COLUMNS + [UNMARKED] * any(one.n_unmarked is not None for one in shares), rows


def _ratio(interval: Interval) -> list[str]:
    ends = f"[{number(interval.low, 1)}, {number(interval.high, 1)}]"
    return [f"{number(interval.value, 1)}×", ends if isfinite(interval.high) else "too few to tell"]


def ranked_rows(corpus: TokenizedCorpus, scores: np.ndarray, exact: Resolved, places: slice | np.ndarray) -> list[dict]:
    """Documents of an exact result by their places in its rank list; `scores`, float32 (N,), are of the same kind."""
    top = float(exact.documents(slice(1))["sum_above"][0].as_py()) if len(exact.taken) else 0.0
    lines = []
    for row in exact.documents(places).to_pylist():
        document = corpus.document(row["document"])
        marked, values = selected_in(corpus, scores, exact, row["document"])
        total = [score(row["sum_above"]), row["sum_above"] / top if top > 0 else 0.0]
        cells = [count(row["rank"]), document.id, document.source, count(row["count_above"]), total]
        excerpt = excerpt_around(corpus, row["document"], marked=marked, scores=values)
        lines.append({"key": document.id, "cells": [*cells, count(row["n_selected"]), excerpt]})
    return lines


def range_rows(
    corpus: TokenizedCorpus, scores: np.ndarray, exact: Resolved, hits: pa.Table, rows: slice, low: float, high: float
) -> list[dict]:
    """A page of the documents with scores in (low, high]; `hits` comes from `ScoreIndex.documents_in_range`."""
    most = hits["count"][0].as_py() if len(hits) else 1
    lines = []
    for row in hits.slice(rows.start, rows.stop - rows.start).to_pylist():
        index = row["document"]
        document = corpus.document(index)
        taken, values = selected_in(corpus, scores, exact, index)
        start = int(corpus.offsets[index])
        marked = (values > low) & (values <= high) & corpus.valid_between(start, start + len(values))
        excerpt = excerpt_around(corpus, index, marked=marked, scores=values, taken=taken)
        counts = [[count(row["count"]), row["count"] / most], count(exact.taken[index])]
        lines.append({"key": document.id, "cells": [document.id, document.source, *counts, excerpt]})
    return lines


def values_of(corpus: TokenizedCorpus, values: np.ndarray, index: int) -> np.ndarray:
    """The values (n,) of a document's tokens, out of (N,)."""
    return np.asarray(values[int(corpus.offsets[index]) : int(corpus.offsets[index + 1])])


def selected_in(
    corpus: TokenizedCorpus, scores: np.ndarray, exact: Resolved, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a document a result selects, bool (n,), and their scores, float32 (n,). As in
    `ifguide.selection.algorithm.select_tokens`, covered tokens are taken in reading order."""
    values = values_of(corpus, scores, index)
    covered = np.zeros(len(values), dtype=bool)
    places = expand_intervals(*exact.hits.covered_intervals(index, index + 1, exact.choice.window, np.ones(1, bool)))
    covered[places[: exact.taken[index]] - corpus.offsets[index]] = True
    return covered, values
