"""What is done with a choice of tokens: keep it under a name, train a model without its tokens."""

from collections.abc import Callable

import streamlit as st

from ifguide.study import Unit
from ifguide.ui import job_panel, layout
from ifguide.ui.format import count_of, plain, selection_title
from ifguide.ui.loaders import Loaded
from ifguide.ui.tuning import Tuning

TRAIN_HELP = "Trains a new model against these tokens, lets it complete the prompts and rates the answers. Runs on its own; you can close this page."


def show(loaded: Loaded, keep: Callable[[Loaded, str, Tuning], None]) -> None:
    """The lower half of the Threshold page.

    Args:
        loaded: the study.
        keep: remembers controls, and writes them to the address.
    """
    with st.grid(2, min_column_width=430, gap="large"):
        with st.container():
            save(loaded)
        with st.container():
            train(loaded)


def current_settings(loaded: Loaded) -> dict:
    """The settings of the selection on the board."""
    kind = st.session_state.get("attribution") or loaded.study.config.selection.attribution
    return st.session_state["tuning"][1].settings(kind)


def save(loaded: Loaded) -> None:
    """Save the choice under a name."""
    st.subheader("Keep this choice", anchor=False)
    with st.form("save", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the selection", placeholder="letters, digits, . _ -", key="new_selection", width=280
        )
        wanted = st.form_submit_button("Save selection", icon=":material/save:")
    if wanted:
        with layout.guard(go_on=True):
            made = loaded.study.save_selection(name.strip(), current_settings(loaded))
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
