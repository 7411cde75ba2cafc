"""Two selections against each other: which tokens and documents only one of them takes."""

import numpy as np
import streamlit as st

from ifguide.selection.index.results import Holding, Overlap
from ifguide.study.analysis.prediction import predicted_change
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.ui import components, layout
from ifguide.ui.excerpts import excerpt_around
from ifguide.ui.format import count, count_of, plain, score, selection_title, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold.selection_panel import MODEL_WORDS, saved_as
from ifguide.ui.threshold.tables import selected_in, values_of

CURRENT = "board"
"""The current selection. No saved selection is called so in the menu: names there carry a prefix."""
SAVED = "saved:"
DOCUMENTS_SHOWN = 10
PARTS: list[dict] = [
    {"label": "", "kind": "titled"},
    {"label": "Tokens", "kind": "bar", "help": "Selected tokens"},
    {"label": "Share", "kind": "number", "help": "Share of the tokens that either selection takes"},
    {"label": "Documents", "kind": "number", "help": "Documents with such tokens"},
]
DIFFERENCES: list[dict] = [
    {"label": "Document", "kind": "text", "sortable": True},
    {"label": "Source", "kind": "text", "sortable": True},
    {"label": "In A", "kind": "number", "sortable": True, "help": "Tokens that A selects"},
    {"label": "In B", "kind": "number", "sortable": True, "help": "Tokens that B selects"},
    {"label": "B − A", "kind": "number", "sortable": True},
    {"label": "Around the highest token that only one selects", "kind": "excerpt"},
]


def show(loaded: Loaded, kind: str, settings: dict) -> None:
    """Ask for two selections and compare them.

    Args:
        loaded: the study.
        kind: the scores that predicted effects are added up from.
        settings: of the current selection.
    """
    st.subheader("Compare two selections", anchor=False)
    options = [CURRENT, *(SAVED + name for name in loaded.study.selection_names())]

    def title(option: str) -> str:
        return "Current selection" if option == CURRENT else selection_title(option.removeprefix(SAVED))

    with st.container(horizontal=True, vertical_alignment="bottom"):
        a, b = (
            st.selectbox(
                letter,
                options,
                index=None if place else 0,
                key=f"side_{letter.lower()}",
                bind="query-params",
                format_func=title,
                placeholder="Choose a selection",
                width=300,
            )
            for place, letter in enumerate("AB")
        )
    if a is None or b is None:
        st.caption("Choose A and B to see which tokens and documents only one of them takes.")
        return
    if a == b:
        st.caption("A and B are the same selection: choose another one.")
        return
    sides = [settings if option == CURRENT else option.removeprefix(SAVED) for option in (a, b)]
    _parts(loaded.overlap(kind, *sides), title(a), title(b))
    _effects(loaded, kind, sides, (title(a), title(b)))
    _documents(loaded, kind, sides)


def _parts(shared: Overlap, title_a: str, title_b: str) -> None:
    whole = max(1, shared.tokens_a + shared.tokens_b + shared.tokens_both)
    parts = [
        ("a", "Only in A", title_a, shared.tokens_a, len(shared.documents_a)),
        ("both", "In both", "", shared.tokens_both, len(shared.documents_both)),
        ("b", "Only in B", title_b, shared.tokens_b, len(shared.documents_b)),
    ]
    rows = [
        {"key": key, "cells": [[name, below, ""], [count(n), n / whole], share(n, whole), count(documents)]}
        for key, name, below, n, documents in parts
    ]
    components.record_table(PARTS, rows, key="overlap", label="Tokens and documents of two selections")


def _effects(loaded: Loaded, kind: str, sides: list, titles: tuple[str, str]) -> None:
    """Both predicted effects, and which of the two was trained."""
    lines, n_valid, penalty = [], loaded.index(kind).n_valid, loaded.study.config.suppress.penalty
    for letter, side, title in zip("AB", sides, titles, strict=True):
        current = isinstance(side, dict)
        found: Holding = loaded.resolved(side) if current else loaded.saved_sums(kind, side)
        name = saved_as(loaded, side) if current else side
        if current and name:
            title = f"{title}, saved as {selection_title(name)}"
        words = [f"{count_of(found.n_selected, 'token')} in {count_of(found.n_documents, 'document')}"]
        words.append(f"predicted effect {score(predicted_change(found.effect, n_valid, penalty))}")
        words += [
            f"{what} {value:.3f}"
            for what, value in (("precision", found.precision), ("recall", found.recall))
            if value is not None
        ]
        model = MODEL_WORDS[unit_state(loaded.study, Unit("evaluate", name)).state].lower() if name else "not saved"
        lines.append(f"**{letter}** · {plain(title)}: {', '.join(words)} · {model}")
    st.markdown("  \n".join(lines))
    st.caption(
        "Predicted effects are rough estimates: above 0, toxic completions become less likely. Only compare them with"
        " each other."
    )


def _documents(loaded: Loaded, kind: str, sides: list) -> None:
    """The documents in which the two differ most."""
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
        excerpt = excerpt_around(corpus, index, marked=in_a != in_b, scores=values)
        shown = [count(a), count(b), f"{change:+,}".replace("-", "−")]
        rows.append(
            {
                "key": document.id,
                "cells": [document.id, document.source, *shown, excerpt],
                "sort": [document.id, document.source, a, b, change, None],
            }
        )
    components.record_table(
        DIFFERENCES,
        rows,
        key="differ",
        label="Documents that differ most",
        veil=layout.veiled(),
        compact=True,
        empty="Every document has as many selected tokens in A as in B.",
    )


def _selected(loaded: Loaded, kind: str, side: str | dict, index: int) -> np.ndarray:
    """Which tokens of one document a side selects, bool (n,)."""
    corpus = loaded.corpus()
    if isinstance(side, dict):
        return selected_in(corpus, loaded.scores(kind), loaded.resolved(side), index)[0]
    return values_of(corpus, loaded.selection(side).mask, index)
