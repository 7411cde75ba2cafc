"""Two selections against each other: which tokens and documents only one of them takes."""

import numpy as np
import streamlit as st

from ifguide.selection.index.results import Holding
from ifguide.study.analysis.prediction import predicted_change
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.ui import components, layout
from ifguide.ui.excerpts import excerpt_around
from ifguide.ui.format import count, count_of, score, selection_title, share
from ifguide.ui.loaders import Loaded

BOARD = "board"
"""Stands for the choice on the board. No saved selection is called so in the menu: names there carry a prefix."""
SAVED = "saved:"
DOCUMENTS_SHOWN = 10
MODEL_WORDS = {"fresh": "trained and measured", "stale": "trained, out of date", "missing": "not trained"}
PARTS = [
    {"label": "Tokens", "kind": "titled"},
    {"label": "Tokens", "kind": "bar", "help": "Selected tokens"},
    {"label": "Share", "kind": "number", "help": "Share of the tokens that either selection takes"},
    {"label": "Documents", "kind": "number", "help": "Documents with such tokens"},
]


def show(loaded: Loaded, kind: str, settings: dict) -> None:
    """Ask for two selections and compare them.

    Args:
        loaded: the study.
        kind: the scores that predicted effects are added up from.
        settings: of the choice on the board.
    """
    st.subheader("Compare two selections", anchor=False)
    options = [BOARD, *(SAVED + name for name in loaded.study.selection_names())]
    title = lambda option: "The choice on the board" if option == BOARD else selection_title(option.removeprefix(SAVED))  # noqa: E731
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
        st.caption("Both are the same selection: choose another one to compare with.")
        return
    sides = {
        letter: settings if option == BOARD else option.removeprefix(SAVED) for letter, option in (("A", a), ("B", b))
    }
    shared = loaded.overlap(kind, sides["A"], sides["B"])
    _parts(shared, title(a), title(b))
    _effects(loaded, kind, sides, {"A": title(a), "B": title(b)})
    _documents(loaded, kind, sides)


def _parts(shared, title_a: str, title_b: str) -> None:
    whole = max(1, shared.tokens_a + shared.tokens_b + shared.tokens_both)
    rows = [
        ("a", "Only in A", title_a, shared.tokens_a, len(shared.documents_a)),
        ("both", "In both", "", shared.tokens_both, len(shared.documents_both)),
        ("b", "Only in B", title_b, shared.tokens_b, len(shared.documents_b)),
    ]
    components.record_table(
        [{"label": "", "kind": "titled"}, *PARTS[1:]],
        [
            {"key": key, "cells": [[name, below, ""], [count(n), n / whole], share(n, whole), count(documents)]}
            for key, name, below, n, documents in rows
        ],
        key="overlap",
        label="Tokens and documents of two selections",
    )


def _effects(loaded: Loaded, kind: str, sides: dict, titles: dict) -> None:
    """Both predicted effects, and which of the two was trained."""
    lines = []
    found: Holding
    for letter, side in sides.items():
        if isinstance(side, dict):
            found, model = loaded.resolved(side), "not saved"
        else:
            found, model = (
                loaded.saved_sums(kind, side),
                MODEL_WORDS[unit_state(loaded.study, Unit("evaluate", side)).state],
            )
        words = [f"{count_of(found.n_selected, 'token')} in {count_of(found.n_documents, 'document')}"]
        change = predicted_change(found.effect, loaded.index(kind).n_valid, loaded.study.config.suppress.penalty)
        words.append(f"predicted effect {score(change)}")
        if found.precision is not None:
            words.append(f"precision {found.precision:.3f}")
        if found.recall is not None:
            words.append(f"recall {found.recall:.3f}")
        lines.append(f"**{letter}** · {titles[letter]}: {', '.join(words)} · {model}")
    st.markdown("  \n".join(lines))
    st.caption(
        "Predicted effects are linear predictions: above 0, toxic completions become less likely. Compare them with"
        " each other only."
    )


def _documents(loaded: Loaded, kind: str, sides: dict) -> None:
    """The documents in which the two differ most."""
    corpus, scores = loaded.corpus(), loaded.scores(kind)
    taken = [
        loaded.resolved(side).taken if isinstance(side, dict) else loaded.n_selected(side) for side in sides.values()
    ]
    differ = taken[1] - taken[0]
    order = np.argsort(-np.abs(differ), kind="stable")[:DOCUMENTS_SHOWN]
    order = order[differ[order] != 0]
    st.markdown("**Documents that differ most**")
    rows = []
    for index in order.tolist():
        document = corpus.document(index)
        values = np.asarray(scores[int(corpus.offsets[index]) : int(corpus.offsets[index + 1])])
        marked = np.zeros(len(values), dtype=bool)
        marked[1:] = values[1:] == values[1:].max() if len(values) > 1 else False
        change = int(differ[index])
        rows.append(
            {
                "key": document.id,
                "cells": [
                    document.id,
                    document.source,
                    count(taken[0][index]),
                    count(taken[1][index]),
                    f"{change:+,}".replace("-", "−"),
                    excerpt_around(corpus, index, marked=marked, scores=values),
                ],
                "sort": [document.id, document.source, int(taken[0][index]), int(taken[1][index]), change, None],
            }
        )
    columns: list[dict] = [
        {"label": "Document", "kind": "text", "sortable": True},
        {"label": "Source", "kind": "text", "sortable": True},
        {"label": "In A", "kind": "number", "sortable": True, "help": "Tokens that A selects"},
        {"label": "In B", "kind": "number", "sortable": True, "help": "Tokens that B selects"},
        {"label": "B − A", "kind": "number", "sortable": True},
        {"label": "Around the highest score", "kind": "excerpt"},
    ]
    components.record_table(
        columns,
        rows,
        key="differ",
        label="Documents that differ most",
        veil=layout.veiled(),
        compact=True,
        empty="Every document has as many selected tokens in A as in B.",
    )
