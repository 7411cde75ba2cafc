"""What is done with a selection: save it, load it, rename it, download it, train a model against it."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from ifguide.config.attributions import describe_kind
from ifguide.study.analysis.export import export_study
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import BUILT_IN_SELECTIONS, Unit
from ifguide.study.select import delete_selection, rename_selection, save_selection, trained_parts
from ifguide.study.variants import BASELINES
from ifguide.ui import components, job_panel, layout
from ifguide.ui.format import column, count, count_of, plain, score, selection_title, share
from ifguide.ui.loaders import Loaded
from ifguide.ui.threshold.tuning import Tuning

TRAIN_HELP = (
    "Trains a new model against these tokens, lets it complete the prompts and rates the answers. It runs in the"
    " background; you can close this page."
)
MODEL_WORDS = {"fresh": "Measured", "stale": "Out of date", "missing": "Not trained"}
COLUMNS = [
    column("Selection", "titled"),
    column("Threshold", note="Tokens that score higher are selected", sortable=True),
    column("Tokens", note="Selected tokens", sortable=True),
    column("Documents", note="Documents with at least one selected token", sortable=True),
    column("Model", "state", "Whether a model was trained against it and measured"),
]
CHOSEN_OTHERWISE = {
    "oracle": "The spans that people marked",
    "borrowed": "A selection of another study, carried over by characters",
    "mask": "Tokens that a file names",
    **{name: what[0].upper() + what[1:] for name, what in BASELINES.items()},
}
"""What a selection without a threshold is, by its kind."""

Keep = Callable[[Loaded, str, Tuning], None]
"""Remembers controls, and writes them to the address."""


def show(loaded: Loaded, settings: dict, keep: Keep) -> None:
    """The lower half of the Threshold page: `settings` are of the current selection; loading another calls `keep`."""
    with st.grid(2, min_column_width=430, gap="large"):
        with st.container():
            _save(loaded, settings)
        with st.container():
            _train(loaded)
    _saved(loaded, keep)


def saved_as(loaded: Loaded, settings: dict) -> str | None:
    """The name of the saved selection that holds the same tokens by the same settings, if there is one."""
    wanted = {**settings, "tokens_above": loaded.resolved(settings).n_above, "kind": "influence", "corrected": None}
    for name in loaded.study.selection_names():
        found = loaded.selection(name).settings
        same = all(found.get(key) == value for key, value in wanted.items())
        if same and unit_state(loaded.study, Unit("selection", name)).state == "fresh":
            return name
    return None


def _save(loaded: Loaded, settings: dict) -> None:
    """Save the current selection under a name."""
    st.subheader("Save selection", anchor=False)
    with st.form("save", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        look: dict = {"placeholder": "letters, digits, . _ -", "width": 280}
        name = st.text_input("Name of the selection", key="new_selection", **look)
        wanted = st.form_submit_button("Save", icon=":material/save:")
    if wanted:
        with layout.guard(go_on=True):
            made = save_selection(loaded.study, name.strip(), settings)
            st.session_state["saved_selection"] = st.session_state["train_next"] = made.name
            _tell(
                f"Saved “{plain(made.name)}” with {count_of(made.settings['n_selected'], 'token')}. "
                "Train against it here, or choose it on the Documents page."
            )
            st.rerun()
    if done := st.session_state.pop("said", None):
        st.success(done, icon=":material/check_circle:")
    elif same := saved_as(loaded, settings):
        st.caption(f"Already saved as “{plain(selection_title(same))}”.")


def _train(loaded: Loaded) -> None:
    """Train against a saved selection and measure the model."""
    study = loaded.study
    st.subheader("Retrain against it", anchor=False)
    names = study.selection_names()
    if not names:
        st.caption("Save a selection first.")
        return
    if job_panel.show_job(study.root, quiet=True):
        return
    states = {name: unit_state(study, Unit("evaluate", name)).state for name in names}
    marks = {"fresh": " (measured)", "stale": " (out of date)", "missing": ""}
    wanted = st.session_state.pop("train_next", None) or st.session_state.get("train_with")
    st.session_state["train_with"] = wanted if wanted in names else names[0]
    titles = {name: selection_title(name) + marks[states[name]] for name in names}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Saved selection", names, key="train_with", width=280, format_func=titles.__getitem__)
        label = "Train again" if states[name] == "stale" else "Train and measure"
        look: dict = {"type": "primary", "icon": ":material/model_training:", "help": TRAIN_HELP}
        if states[name] != "fresh" and st.button(label, **look):
            job_panel.start(study.root, ["evaluate", study.name, "--model", name])
    if states[name] == "fresh":
        label, query = "Compare it with the base model", {"study": study.name, "models": f"base,{name}"}
        st.page_link("pages/compare.py", label=label, icon=":material/compare:", query_params=query)


def _saved(loaded: Loaded, keep: Keep) -> None:
    """The saved selections, and what can be done with the chosen one."""
    names = loaded.study.selection_names()
    if not names:
        return
    st.subheader("Saved selections", anchor=False)
    picked = (st.session_state.get("saved_table") or {}).get("pick")
    if picked in names:
        st.session_state["saved_selection"] = picked
    chosen = st.session_state.get("saved_selection")
    chosen = chosen if chosen in names else names[0]
    rows = [_row(loaded, name) for name in names]
    components.record_table(COLUMNS, rows, key="saved_table", label="Saved selections", chosen=chosen, pickable=True)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(selection_title(chosen))}**", width="content")
        found = loaded.selection(chosen).settings
        other = found["kind"] != "influence" or found["attribution"] not in loaded.study.kinds()
        note = "Sets the score, the threshold, the neighbours and the budget to those of this selection."
        look: dict = {"icon": ":material/tune:", "key": "load", "disabled": other, "help": note}
        st.button("Load", **look, on_click=_load, args=(loaded, keep, found))
        _download(loaded, chosen)
        if chosen not in BUILT_IN_SELECTIONS:
            _rename(loaded, chosen)
            _delete(loaded, chosen)


def settings_line(found: dict) -> str:
    """The settings of a selection in one line."""
    if found["tokens_above"] is None:
        return CHOSEN_OTHERWISE.get(found["kind"], "The best by scores from a file")
    top = f"top {share(found['tokens_above'], found['n_valid'], digits=2)}"
    at_random = f"As many tokens as the {top}, drawn at random"
    line = at_random if found["kind"] == "random" else f"{describe_kind(found['attribution']).title}, {top}"
    if found["window"]:
        line += f", {count_of(found['window'], 'neighbour')} on each side"
    return line + (f", budget {count(found['max_tokens'])}" if found["max_tokens"] else "")


def _row(loaded: Loaded, name: str) -> dict:
    found, state = loaded.selection(name).settings, unit_state(loaded.study, Unit("evaluate", name)).state
    by_score = found["tokens_above"] is not None and found["kind"] != "random"
    counts = [found["n_selected"], found["n_documents_hit"]]
    title = [selection_title(name), settings_line(found), ""]
    threshold = score(found["threshold"]) if by_score else "–"
    return {
        "key": name,
        "cells": [title, threshold, *map(count, counts), [state, MODEL_WORDS[state], ""]],
        "sort": [name, found["threshold"] if by_score else None, *counts, state],
    }


def _tell(sentence: str) -> None:
    st.session_state["said"] = sentence


def _load(loaded: Loaded, keep: Keep, found: dict) -> None:
    st.session_state["attribution"] = found["attribution"]
    before: Tuning = st.session_state["tuning"][1]
    loads = {key: found[key] for key in ("tokens_above", "window", "max_tokens")}
    keep(loaded, found["attribution"], dataclasses.replace(before, **loads))
    _tell(f"Loaded “{plain(selection_title(found['name']))}”.")


def _download(loaded: Loaded, name: str) -> None:
    layout.offer_download(
        "Download the mask",
        lambda: _mask_file(loaded, name),
        file=f"{loaded.name}-{name}.parquet",
        mime="application/vnd.apache.parquet",
        key="download_mask",
        help="Parquet, one row a document: the selected tokens, their characters in the text, and the settings.",
    )


def _mask_file(loaded: Loaded, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.parquet"
        export_study(loaded.study, "spans", path, selection=name)
        return path.read_bytes()


def _rename(loaded: Loaded, name: str) -> None:
    with st.popover("Rename", icon=":material/edit:"), st.form("rename", border=False):
        new = st.text_input("New name", value=name, key=f"rename_{name}").strip()
        if st.form_submit_button("Rename"):
            with layout.guard(go_on=True):
                rename_selection(loaded.study, name, new)
                st.session_state["saved_selection"] = st.session_state["train_next"] = new
                _tell(f"Renamed “{plain(name)}” to “{plain(new)}”.")
                st.rerun()


def _delete(loaded: Loaded, name: str) -> None:
    with st.popover("Delete", icon=":material/delete:"):
        trained = trained_parts(loaded.study, name)
        with_model = " The model trained with it and its measurements are deleted too." if trained else ""
        st.markdown(f"Delete “{plain(name)}”?{with_model} This cannot be undone.")
        if st.button("Delete permanently", key=f"delete_{name}", type="primary"):
            with layout.guard(go_on=True):
                delete_selection(loaded.study, name)
                _tell(f"Deleted “{plain(name)}”.")
                st.rerun()
