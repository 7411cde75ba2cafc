"""What is done with choices of tokens: keep one under a name, come back to it, hand it on, train a model without its
tokens."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from ifguide.study.analysis.export import export_study
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import BUILT_IN_SELECTIONS, Unit
from ifguide.study.select import save_selection
from ifguide.study.selection_names import delete_selection, rename_selection, trained_parts
from ifguide.study.variants import BASELINES
from ifguide.ui import components, job_panel, layout
from ifguide.ui.format import ATTRIBUTION_TITLES, count, count_of, plain, score, selection_title, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold.tuning import Tuning

TRAIN_HELP = (
    "Trains a new model against these tokens, lets it complete the prompts and rates the answers. Runs on its own; you"
    " can close this page."
)
MODEL_WORDS = {
    "fresh": ["fresh", "Measured", ""],
    "stale": ["stale", "Out of date", ""],
    "missing": ["missing", "Not trained", ""],
}
COLUMNS: list[dict] = [
    {"label": "Selection", "kind": "titled"},
    {"label": "Threshold", "kind": "number", "sortable": True, "help": "Tokens with a score above this were taken"},
    {"label": "Tokens", "kind": "number", "sortable": True, "help": "Selected tokens"},
    {"label": "Documents", "kind": "number", "sortable": True, "help": "Documents with at least one selected token"},
    {"label": "Model", "kind": "state", "help": "Whether a model was trained against it and measured"},
]

CHOSEN_OTHERWISE = {
    "oracle": "The spans that people marked",
    "borrowed": "A selection of another study, carried over by characters",
    **{name: what[0].upper() + what[1:] for name, what in BASELINES.items()},
}
"""What a selection without a threshold is, by its kind."""

Keep = Callable[[Loaded, str, Tuning], None]
"""Remembers controls, and writes them to the address."""


def show(loaded: Loaded, settings: dict, keep: Keep) -> None:
    """The lower half of the Threshold page.

    Args:
        loaded: the study.
        settings: of the choice on the board.
        keep: what loading a selection calls.
    """
    with st.grid(2, min_column_width=430, gap="large"):
        with st.container():
            save(loaded, settings)
        with st.container():
            train(loaded)
    saved(loaded, keep)


def save(loaded: Loaded, settings: dict) -> None:
    """Save the choice under a name."""
    st.subheader("Keep this choice", anchor=False)
    with st.form("save", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the selection", placeholder="letters, digits, . _ -", key="new_selection", width=280
        )
        wanted = st.form_submit_button("Save selection", icon=":material/save:")
    if wanted:
        with layout.guard(go_on=True):
            made = save_selection(loaded.study, name.strip(), settings)
            st.session_state["saved_selection"] = made.name
            _tell(
                f"Saved “{plain(made.name)}” with {count_of(made.settings['n_selected'], 'token')}. "
                "It can be chosen on the Documents page, and trained here."
            )
            st.rerun()
    if done := st.session_state.pop("said", None):
        st.success(done, icon=":material/check_circle:")


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
    states = {name: unit_state(study, Unit("evaluate", name)).state for name in names}
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
            query_params={"study": study.name, "models": f"base,{name}"},
        )


def saved(loaded: Loaded, keep: Keep) -> None:
    """The saved selections, and what can be done with the chosen one."""
    study = loaded.study
    names = study.selection_names()
    if not names:
        return
    st.subheader("Saved selections", anchor=False)
    picked = (st.session_state.get("saved_table") or {}).get("pick")
    if picked in names:
        st.session_state["saved_selection"] = picked
    chosen = st.session_state.get("saved_selection")
    chosen = chosen if chosen in names else names[0]
    described = {name: read_settings(loaded, name) for name in names}
    components.record_table(
        COLUMNS,
        [_row(loaded, name, described[name]) for name in names],
        key="saved_table",
        label="Saved selections",
        chosen=chosen,
        pickable=True,
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(selection_title(chosen))}**", width="content")
        found = described[chosen]
        st.button(
            "Load on the board",
            icon=":material/tune:",
            key="load",
            disabled=found["kind"] != "influence" or found["attribution"] not in loaded.kinds(),
            help="Sets the score, the threshold, the neighbours and the budget as this selection has them.",
            on_click=_load,
            args=(loaded, keep, found),
        )
        _download(loaded, chosen)
        if chosen not in BUILT_IN_SELECTIONS:
            _rename(loaded, chosen)
            _delete(loaded, chosen)


def read_settings(loaded: Loaded, name: str) -> dict:
    """What made a saved selection, and its counts."""
    return loaded.selection(name).settings


def settings_line(found: dict) -> str:
    """The settings of a selection in one line."""
    if found["quantile"] is None:
        return CHOSEN_OTHERWISE[found["kind"]]
    parts = [f"{ATTRIBUTION_TITLES[found['attribution']]}, highest {share(1 - found['quantile'], digits=2)}"]
    if found["kind"] == "random":
        parts = [f"As many tokens as the highest {share(1 - found['quantile'], digits=2)}, drawn at random"]
    if found["window"]:
        parts.append(f"{count_of(found['window'], 'neighbour')} on each side")
    if found["max_tokens"]:
        parts.append(f"budget {count(found['max_tokens'])}")
    return ", ".join(parts)


def _row(loaded: Loaded, name: str, found: dict) -> dict:
    state = unit_state(loaded.study, Unit("evaluate", name)).state
    threshold = None if found["quantile"] is None or found["kind"] == "random" else found["threshold"]
    numbers = [threshold, found["n_selected"], found["n_documents_hit"]]
    cells = [
        "–" if threshold is None else score(threshold),
        count(found["n_selected"]),
        count(found["n_documents_hit"]),
    ]
    return {
        "key": name,
        "cells": [[selection_title(name), settings_line(found), ""], *cells, MODEL_WORDS[state]],
        "sort": [name, *numbers, state],
    }


def _tell(sentence: str) -> None:
    st.session_state["said"] = sentence


def _load(loaded: Loaded, keep: Keep, found: dict) -> None:
    kind = found["attribution"]
    st.session_state["attribution"] = kind
    before: Tuning = st.session_state["tuning"][1]
    keep(loaded, kind, before.at(found))
    _tell("Loaded: the board stands where this selection was made.")


def _download(loaded: Loaded, name: str) -> None:
    st.download_button(
        "Download the mask",
        data=lambda: _mask_file(loaded, name),
        file_name=f"{loaded.name}-{name}.parquet",
        mime="application/vnd.apache.parquet",
        icon=":material/download:",
        key="download_mask",
        on_click="ignore",
        help=(
            "Parquet, one row a document: which tokens are selected, and their characters in the text; with the"
            " settings and hashes that made it."
        ),
    )


def _mask_file(loaded: Loaded, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.parquet"
        export_study(loaded.study, "spans", path, selection=name)
        return path.read_bytes()


def _rename(loaded: Loaded, name: str) -> None:
    with st.popover("Rename", icon=":material/edit:"), st.form("rename", border=False):
        new = st.text_input("New name", value=name, key=f"rename_{name}")
        if st.form_submit_button("Rename"):
            with layout.guard(go_on=True):
                rename_selection(loaded.study, name, new.strip())
                st.session_state["saved_selection"] = new.strip()
                _tell(f"“{plain(name)}” is called “{plain(new.strip())}” now.")
                st.rerun()


def _delete(loaded: Loaded, name: str) -> None:
    with st.popover("Delete", icon=":material/delete:"):
        with_model = (
            " The model trained with it and its measurements go too." if trained_parts(loaded.study, name) else ""
        )
        st.markdown(f"Delete “{plain(name)}”?{with_model} This cannot be undone.")
        if st.button("Delete for good", key=f"delete_{name}", type="primary"):
            with layout.guard(go_on=True):
                delete_selection(loaded.study, name)
                _tell(f"Deleted “{plain(name)}”.")
                st.rerun()
