"""Choosing tokens: where to cut, and what that takes."""

import streamlit as st

from ifguide.selection import precision_recall
from ifguide.study import Study, Unit
from ifguide.ui import charts, components, job_panel, layout
from ifguide.ui.format import (
    ATTRIBUTION_NOTES,
    ATTRIBUTION_TITLES,
    count,
    count_of,
    number,
    plain,
    score,
    selection_title,
    share,
)
from ifguide.ui.loaders import Loaded

TAIL_SHARE = 0.05
"""The close-up shows this share of the highest scores, or more when the threshold lies lower."""
TRAIN_HELP = "Trains a new model against these tokens, lets it complete the prompts and rates the answers. Runs on its own; you can close this page."
WORDS_SHOWN = 15
MIN_FOR_LIFT = 3
"""The lift of a word selected once or twice says little."""


def ask_settings(loaded: Loaded) -> dict:
    """The controls; every one answers when it is let go."""
    defaults = loaded.study.config.selection
    kinds = [kind for kind in loaded.kinds() if kind != "token_loss"]
    with st.grid(4, min_column_width=210, gap="medium"):
        taken = st.slider(
            "Share of tokens above the threshold", 0.05, 10.0, min(10.0, max(0.05, round(100 * (1 - defaults.quantile), 2))), 0.05, format="%.2f%%", key="top", bind="query-params",
            help="The threshold is the score that this share of all tokens lies above.",
        )  # fmt: skip
        window = st.slider(
            "Neighbours on each side",
            0,
            5,
            defaults.window,
            key="window",
            bind="query-params",
            help="Also take this many tokens before and after each one above the threshold.",
        )
        budget = st.number_input(
            "Budget in tokens (0: none)", 0, loaded.corpus().n_tokens, min(defaults.max_tokens, loaded.corpus().n_tokens), 100, key="budget", bind="query-params",
            help="Documents are taken by rank until this many tokens are selected.",
        )  # fmt: skip
        attribution = st.segmented_control(
            "Score", kinds, default=defaults.attribution if defaults.attribution in kinds else kinds[0], required=True, key="attribution", bind="query-params",
            format_func=lambda kind: ATTRIBUTION_TITLES[kind], help="  \n".join(f"**{ATTRIBUTION_TITLES[k]}**: {ATTRIBUTION_NOTES[k]}" for k in kinds),
        )  # fmt: skip
    return {
        "quantile": round(1 - taken / 100, 6),
        "window": int(window),
        "max_tokens": int(budget),
        "attribution": attribution,
    }


def show_result(loaded: Loaded, chosen) -> None:
    """How much the choice takes, and how well it agrees with people where that is known."""
    corpus, found = loaded.corpus(), chosen.settings
    cards = [
        ("Selected tokens", count(found["n_selected"]), f"{share(found['n_selected'], found['n_valid'], 2)} of all tokens", "Tokens the next training would push away from."),
        ("Documents touched", count(found["n_documents_hit"]), f"{share(found['n_documents_hit'], corpus.n_documents)} of all documents", "Documents with at least one selected token."),
        ("Threshold", score(found["threshold"]), f"{ATTRIBUTION_TITLES[found['attribution']].lower()} score", "Tokens with a score above this are taken."),
    ]  # fmt: skip
    if corpus.in_span is not None:
        precision, recall = precision_recall(chosen.mask, corpus.in_span, corpus.valid())
        note = "People marked toxic spans in this corpus. They judge the result here and are never used to compute it. "
        cards += [
            (
                "Precision",
                number(precision),
                "of selected are marked",
                note + "Share of selected tokens that people marked.",
            ),
            ("Recall", number(recall), "of marked are selected", note + "Share of marked tokens that are selected."),
        ]
    with st.grid(len(cards), min_column_width=170):
        for title, value, below, note in cards:
            st.metric(title, value, delta=below, delta_color="off", delta_arrow="off", help=note, border=True)


def show_distribution(loaded: Loaded, chosen) -> None:
    """All scores, binned, with the threshold."""
    scores, threshold = loaded.sorted_scores(chosen.settings["attribution"]), chosen.settings["threshold"]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("How the scores are spread", anchor=False)
        view = st.segmented_control(
            "Range", ["all", "tail"], default="all", required=True, key="range", bind="query-params", label_visibility="collapsed",
            format_func=lambda v: {"all": "All scores", "tail": "Highest scores"}[v],
        )  # fmt: skip
    low, high = float(scores[0]), float(scores[-1])
    if view == "tail":
        low = min(float(scores[int(len(scores) * (1 - TAIL_SHARE))]), threshold - 0.1 * (high - threshold))
    if not low < high:
        st.info("All scores are the same, so there is nothing to draw.")
        return
    bins = charts.bin_scores(scores, threshold, low=low, high=high)
    st.plotly_chart(
        charts.score_chart(bins),
        key="scores",
        config=charts.CONFIG,
        alt="Number of tokens by score, with the threshold",
    )
    shown = (
        "Every scored token is counted."
        if view == "all"
        else f"The {count(int(bins.counts.sum()))} highest of {count(len(scores))} scored tokens."
    )
    st.caption(
        f"{shown} The dashed line is the threshold. Positive scores teach toxicity, negative ones work against it."
    )


def show_words(loaded: Loaded, settings: dict) -> None:
    """Words that are selected most often."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Which words are selected", anchor=False, width="content")
        order = st.segmented_control(
            "Order", ["often", "lift"], default="often", required=True, key="words_by", bind="query-params", label_visibility="collapsed",
            format_func=lambda v: {"often": "Most often", "lift": "Highest lift"}[v],
        )  # fmt: skip
    words = found = loaded.ranked_words(settings)
    if order == "lift":
        words = sorted((w for w in found if w.selected >= MIN_FOR_LIFT), key=lambda w: (-w.lift, -w.selected, w.word))
    words = words[:WORDS_SHOWN]
    columns = [
        {"label": "Word", "kind": "veiled"},
        {"label": "Times selected", "kind": "bar", "help": "Occurrences with at least one selected token"},
        {"label": "Occurrences", "kind": "number", "help": "How often the word stands in the corpus"},
        {"label": "Share selected", "kind": "number"},
        {
            "label": "Lift",
            "kind": "number",
            "help": "How many times likelier this word is selected than an average word",
        },
    ]
    most = max((w.selected for w in words), default=1)
    rows = [
        {
            "key": w.word,
            "cells": [
                w.word,
                [count(w.selected), w.selected / most],
                count(w.occurrences),
                share(w.share),
                f"{w.lift:,.1f}×",
            ],
        }
        for w in words
    ]
    components.record_table(
        columns,
        rows,
        key="words",
        label="Most selected words",
        veil=layout.veiled(),
        empty="No selected token belongs to a word.",
    )
    rare = f" Words selected fewer than {MIN_FOR_LIFT} times are left out." if order == "lift" else ""
    st.caption(
        f"{count(len(words))} of {count_of(len(found), 'selected word')}, upper and lower case counted together.{rare}"
    )


def save(study: Study, settings: dict) -> None:
    """Save the choice under a name."""
    st.subheader("Keep this choice", anchor=False)
    with st.form("save", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the selection", placeholder="letters, digits, . _ -", key="new_selection", width=280
        )
        wanted = st.form_submit_button("Save selection", icon=":material/save:")
    if wanted:
        with layout.guard(go_on=True):
            made = study.save_selection(name.strip(), settings)
            st.session_state["saved"] = (made.name, made.settings["n_selected"])
            st.rerun()
    if done := st.session_state.pop("saved", None):
        st.success(
            f"Saved “{plain(done[0])}” with {count_of(done[1], 'token')}. It can be chosen on the Documents page, and trained here.",
            icon=":material/check_circle:",
        )


def train(loaded: Loaded) -> None:
    """Train against a saved selection and measure the model."""
    study = loaded.study
    st.subheader("Train without it", anchor=False)
    names = study.selection_names()
    if not names:
        st.caption("Save a selection first.")
        return
    if job_panel.show_job(study.root, quiet=True):
        return
    states = {name: study.unit_state(Unit("evaluate", name)).state for name in names}
    marks = {"fresh": " (measured)", "stale": " (out of date)", "missing": ""}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Saved selection",
            names,
            key="train_with",
            width=280,
            format_func=lambda n: selection_title(n) + marks[states[n]],
        )
        label = "Train again" if states[name] == "stale" else "Train and measure"
        if states[name] != "fresh" and st.button(
            label, type="primary", icon=":material/model_training:", help=TRAIN_HELP
        ):
            job_panel.start(study.root, ["evaluate", study.name, "--model", name])
    if states[name] == "fresh":
        st.page_link(
            "pages/compare.py",
            label="Trained and measured: compare it",
            icon=":material/compare:",
            query_params={"study": study.name, "right": name},
        )


loaded = layout.open_page(
    "Threshold", "Decide how many tokens are taken, see what they are, and train a model without them."
)
with layout.guard():
    layout.need_stage(loaded, "index", "The threshold is chosen among the tokens' scores.")
    settings = ask_settings(loaded)
    chosen = loaded.preview(settings)
    show_result(loaded, chosen)
    show_distribution(loaded, chosen)
    with st.grid(2, min_column_width=430, gap="large"):
        with st.container():
            save(loaded.study, settings)
        with st.container():
            train(loaded)
    show_words(loaded, settings)
