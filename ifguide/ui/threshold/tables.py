"""Rows of the Threshold page's tables: documents, words, sources. No streamlit here."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.word_counts import WordCount
from ifguide.selection.index import Resolved
from ifguide.ui.excerpts import excerpt_around
from ifguide.ui.format import count, score, share

MIN_FOR_LIFT = 3
"""The lift of a word selected once or twice says little: such words stand last when sorted by lift."""
WORDS_MOST = 400


def _lift_columns(label: str, kind: str, all_label: str, helps: tuple[str, str, str, str]) -> list[dict]:
    """Columns that count something and compare it with its base rate: its name, selected, all, share, lift."""
    names = (("Selected", "bar"), (all_label, "number"), ("Share", "number"), ("Lift", "number"))
    counted = [
        {"label": name, "kind": shown, "sortable": True, "help": text}
        for (name, shown), text in zip(names, helps, strict=True)
    ]
    return [{"label": label, "kind": kind, "sortable": True}, *counted]


WORD_COLUMNS = _lift_columns(
    "Word",
    "veiled",
    "Occurrences",
    (
        "Occurrences with at least one selected token",
        "How often the word stands in the corpus",
        "Share of its occurrences that is selected",
        "How many times likelier this word is selected than an average word; words selected once or twice come last",
    ),
)

SOURCE_COLUMNS = _lift_columns(
    "Source",
    "text",
    "Tokens",
    (
        "Selected tokens of the source",
        "All its tokens that have a score",
        "Share of its tokens that is selected",
        "How many times likelier a token of this source is selected than an average token",
    ),
)

RANKED_COLUMNS = [
    {
        "label": "Rank",
        "kind": "number",
        "help": "1 teaches toxicity most: many tokens above the threshold, and high ones",
    },
    {"label": "Document", "kind": "text"},
    {"label": "Source", "kind": "text"},
    {"label": "Above", "kind": "number", "help": "Tokens above the threshold"},
    {"label": "Sum", "kind": "bar", "help": "Sum of their scores"},
    {
        "label": "Selected",
        "kind": "number",
        "help": "Selected tokens: those above the threshold and their neighbours, within the budget",
    },
    {"label": "Around the highest selected token", "kind": "excerpt"},
]

RANGE_COLUMNS = [
    {"label": "Document", "kind": "text"},
    {"label": "Source", "kind": "text"},
    {"label": "In range", "kind": "bar", "help": "Tokens with a score in the chosen range"},
    {
        "label": "Selected",
        "kind": "number",
        "help": "Selected tokens: those above the threshold and their neighbours, within the budget",
    },
    {"label": "Around the highest token in the range", "kind": "excerpt"},
]


def word_rows(found: Sequence[WordCount]) -> list[dict]:
    """The words selected most often, and those of the highest lift, each once."""
    by_lift = sorted((w for w in found if w.selected >= MIN_FOR_LIFT), key=lambda w: (-w.lift, -w.selected, w.word))
    kept = dict.fromkeys([*found[:WORDS_MOST], *by_lift[:WORDS_MOST]])
    most = max((w.selected for w in kept), default=1)
    return [
        {
            "key": w.word,
            "cells": [
                w.word,
                [count(w.selected), w.selected / most],
                count(w.occurrences),
                share(w.share),
                _times(w.lift),
            ],
            "sort": [w.word, w.selected, w.occurrences, w.share, w.lift if w.selected >= MIN_FOR_LIFT else None],
        }
        for w in kept
    ]


def source_rows(names: Sequence[str], totals: np.ndarray, selected: np.ndarray) -> list[dict]:
    """One row a source, most selected tokens first.

    Args:
        names: S of them.
        totals: int64 (S,), tokens that have a score.
        selected: int64 (S,), selected tokens.
    """
    base, most = int(selected.sum()) / max(1, int(totals.sum())), max(1, int(selected.max(initial=0)))
    rows = []
    for s in np.argsort(-selected, kind="stable").tolist():
        part = int(selected[s]) / max(1, int(totals[s]))
        lift = part / base if base else 0.0
        rows.append(
            {
                "key": names[s],
                "cells": [
                    names[s],
                    [count(selected[s]), int(selected[s]) / most],
                    count(totals[s]),
                    share(part),
                    _times(lift),
                ],
                "sort": [names[s], int(selected[s]), int(totals[s]), part, lift],
            }
        )
    return rows


def ranked_rows(corpus: TokenizedCorpus, scores: np.ndarray, found: Resolved, rows: slice) -> list[dict]:
    """A page of the rank list.

    Args:
        corpus: the study's corpus.
        scores: float32 (N,), of the kind that was resolved.
        found: the exact result.
        rows: which places.
    """
    table = found.documents(rows.start, rows.stop)
    top = float(found.documents(0, 1)["sum_above"][0].as_py()) if len(found.taken) else 0.0
    lines = []
    for row in table.to_pylist():
        document = corpus.document(row["document"])
        marked, values = selected_in(corpus, scores, found, row["document"])
        cells = [
            count(row["rank"]),
            document.id,
            document.source,
            count(row["count_above"]),
            [score(row["sum_above"]), row["sum_above"] / top if top > 0 else 0.0],
            count(row["n_selected"]),
            excerpt_around(corpus, row["document"], marked=marked, scores=values),
        ]
        lines.append({"key": document.id, "cells": cells})
    return lines


def range_rows(
    corpus: TokenizedCorpus, scores: np.ndarray, found: Resolved, hits: pa.Table, rows: slice, low: float, high: float
) -> list[dict]:
    """A page of the documents with scores in (low, high]; `hits` comes from `ScoreIndex.documents_in_range`."""
    most = hits["count"][0].as_py() if len(hits) else 1
    lines = []
    for row in hits.slice(rows.start, rows.stop - rows.start).to_pylist():
        index = row["document"]
        document = corpus.document(index)
        values = np.asarray(scores[int(corpus.offsets[index]) : int(corpus.offsets[index + 1])])
        marked = (values > low) & (values <= high)
        marked[:1] = False
        cells = [
            document.id,
            document.source,
            [count(row["count"]), row["count"] / most],
            count(found.taken[index]),
            excerpt_around(corpus, index, marked=marked, scores=values),
        ]
        lines.append({"key": document.id, "cells": cells})
    return lines


def selected_in(
    corpus: TokenizedCorpus, scores: np.ndarray, found: Resolved, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of one document a result selects, bool (n,), and their scores, float32 (n,).

    The same rule as `ifguide.selection.algorithm.select_tokens`: inside a document, covered tokens are taken in reading
    order.
    """
    values = np.asarray(scores[int(corpus.offsets[index]) : int(corpus.offsets[index + 1])])
    above = values.astype(np.float64) > found.threshold
    above[:1] = False
    window = found.settings["window"]
    covered = np.convolve(above, np.ones(2 * window + 1), mode="full")[window : window + len(above)] > 0.5
    covered[:1] = False
    covered[np.flatnonzero(covered)[int(found.taken[index]) :]] = False
    return covered, values


def _times(lift: float) -> str:
    return f"{lift:,.1f}×"
