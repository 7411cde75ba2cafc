"""Two selections compared: which tokens and documents only one of them takes."""

import numpy as np
import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.words import WRITTEN_WORD
from ifguide.selection.index.results import Holding, Overlap, Resolved
from ifguide.selection.prediction import predicted_change
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.ui import components, layout
from ifguide.ui.excerpts import excerpt_around
from ifguide.ui.format import column, count, count_of, plain, score, selection_title, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold.selection_panel import MODEL_WORDS, saved_as
from ifguide.ui.threshold.tables import selected_in, values_of

CURRENT = "board"
"""The current selection; saved ones have a prefix in the menu, so that none can have this name."""
SAVED = "saved:"
DOCUMENTS_SHOWN = 10
PARTS = [
    column("", "titled"),
    column("Tokens", "bar", "Selected tokens"),
    column("Share", note="Share of the tokens that either selection takes"),
    column("Documents", note="Documents with such tokens"),
]
DIFFERENCES = [
    *(column(label, "text", sortable=True) for label in ("Document", "Source")),
    *(column(f"In {side}", note=f"Tokens that {side} selects", sortable=True) for side in "AB"),
    column("B − A", sortable=True),
    column("Around the highest token that only one selects", "excerpt"),
]


def show(loaded: Loaded, kind: str, settings: dict) -> None:
    st.subheader("Compare two selections", anchor=False)
    titles = {CURRENT: "Current selection"}
    titles |= {SAVED + name: selection_title(name) for name in loaded.study.selection_names()}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        a = layout.choose("A", titles, key="side_a", width=300)
        b = layout.choose("B", titles, key="side_b", width=300)
    if a == b:
        st.caption("Choose two different selections to see which tokens and documents only one of them takes.")
        return
    sides = [settings if option == CURRENT else option.removeprefix(SAVED) for option in (a, b)]
    _parts(loaded.overlap(kind, *sides), titles[a], titles[b])
    _effects(loaded, kind, sides, (titles[a], titles[b]))
    _documents(loaded, kind, sides)


def _parts(shared: Overlap, title_a: str, title_b: str) -> None:
    whole = max(1, shared.tokens_a + shared.tokens_b + shared.tokens_both)
    parts = [
        ("a", "Only in A", title_a, shared.tokens_a, shared.documents_a),
        ("both", "In both", "", shared.tokens_both, shared.documents_both),
        ("b", "Only in B", title_b, shared.tokens_b, shared.documents_b),
    ]
    rows = [
        {"key": key, "cells": [[name, below, ""], [count(n), n / whole], share(n, whole), count(documents)]}
        for key, name, below, n, documents in parts
    ]
    components.record_table(PARTS, rows, key="overlap", label="Tokens and documents of two selections")


def _effects(loaded: Loaded, kind: str, sides: list, titles: tuple[str, str]) -> None:
    """Sizes of both selections, their predicted effects if the scores are an influence, and whether they were
    trained."""
    influence = loaded.influence(kind)
    predicts = influence is not None or describe_kind(kind).curvature
    lines, n_valid, penalty = [], loaded.index(kind).n_valid, loaded.study.config.suppress.penalty
    for letter, side, title in zip("AB", sides, titles, strict=True):
        current = isinstance(side, dict)
        holding: Holding = loaded.resolved(side) if current else loaded.saved_sums(kind, side)
        name = saved_as(loaded, side) if current else side
        if current and name:
            title = f"{title}, saved as {selection_title(name)}"
        words = [f"{count_of(holding.n_selected, 'token')} in {count_of(holding.n_documents, 'document')}"]
        if predicts:
            effect = holding.effect
            if influence is not None and isinstance(holding, Resolved):
                effect = loaded.index(kind).total(holding, influence)
            elif influence is not None:
                effect = loaded.saved_sums("own_loss", side).effect
            words.append(f"predicted effect {score(predicted_change(effect, n_valid, penalty))}")
        measures = {"precision": holding.precision, "recall": holding.recall}
        words += [f"{measure} {value:.3f}" for measure, value in measures.items() if value is not None]
        model = MODEL_WORDS[unit_state(loaded.study, Unit("evaluate", name)).state].lower() if name else "not saved"
        lines.append(f"**{letter}** · {plain(title)}: {', '.join(words)} · {model}")
    st.markdown("  \n".join(lines))
    if predicts:
        st.caption(
            "Predicted effects are rough estimates: above 0, toxic completions become less likely. Only compare them"
            " with each other."
        )


def _documents(loaded: Loaded, kind: str, sides: list) -> None:
    corpus, scores = loaded.corpus(), loaded.scores(kind)
    taken = [loaded.resolved(side).taken if isinstance(side, dict) else loaded.n_selected(side) for side in sides]
    differ = taken[1] - taken[0]
    order = np.argsort(-np.abs(differ), kind="stable")[:DOCUMENTS_SHOWN]
    st.markdown("**Documents that differ most**")
    rows = []
    for index in order[differ[order] != 0].tolist():
        document = corpus.document(index)
        values = values_of(corpus, scores, index)
        in_a, in_b = (_selected(loaded, kind, side, index) for side in sides)
        a, b, change = int(taken[0][index]), int(taken[1][index]), int(differ[index])
        marked = only_one(corpus, index, in_a, in_b)
        excerpt = excerpt_around(corpus, index, marked=marked, scores=values, taken=in_a | in_b)
        shown = [count(a), count(b), f"{change:+,}".replace("-", "−")]
        cells = [document.id, document.source, *shown, excerpt]
        sort = [document.id, document.source, a, b, change, None]
        rows.append({"key": document.id, "cells": cells, "sort": sort})
    components.record_table(
        DIFFERENCES,
        rows,
        key="differ",
        label="Documents that differ most",
        compact=True,
        empty="Every document has as many selected tokens in A as in B.",
    )


def only_one(corpus: TokenizedCorpus, index: int, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """Which tokens of a document only one of two selections takes, bool (n,) each. Words of which both take some are
    left out if others remain."""
    starts = [word.start() for word in WRITTEN_WORD.finditer(corpus.document(index).text)]
    words = np.searchsorted(starts, values_of(corpus, corpus.char_end, index).astype(np.int64) - 1, side="right")
    differ = in_a != in_b
    whole = differ & ~np.isin(words, words[in_a & in_b])
    return whole if whole.any() else differ


def _selected(loaded: Loaded, kind: str, side: str | dict, index: int) -> np.ndarray:
    corpus = loaded.corpus()
    if isinstance(side, dict):
        return selected_in(corpus, loaded.scores(kind), loaded.resolved(side), index)[0]
    return values_of(corpus, loaded.selection(side).mask, index)
