"""A study on the Studies page: its state at a glance, and what can be done with it as a whole."""

from pathlib import Path

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import latest_job
from ifguide.study.folder import cache_dir
from ifguide.study.planning.plan import size
from ifguide.study.shelf import delete_study, duplicate_study, measure, rename_study
from ifguide.ui import frame, job_panel, layout
from ifguide.ui.format import ago, plain, sentence
from ifguide.ui.loaders import load_study
from ifguide.ui.results.tables import headline

ACTIONS = {
    "Duplicate": ("The copy gets the settings and inputs, not the results; run it to get its own.", duplicate_study),
    "Rename": ("Links with the old name will no longer find it.", rename_study),
    "Delete": ("The study and all its results will be removed from this machine. This cannot be undone.", None),
}
"""Action in the card's menu -> what to know first, and the function that takes a new name."""


def show_card(name: str) -> None:
    root = cache_dir() / name
    state = frame.state_of(name)
    result, about, n_bytes, changed = _describe(root, state)
    with st.container(border=True, key=f"study_{name}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{plain(name)}**", width="content")
            st.caption("{1} {0}".format(*frame.STATES[state]), width="content")
            st.space("stretch")
            st.caption(f"{size(n_bytes)} · changed {ago(changed)}", width="content")
            if st.button("Open", key=f"open_{name}", disabled=state == "broken"):
                layout.open_study(name)
            key, icon = f"menu_{name}", ":material/more_vert:"
            if action := st.menu_button("More", [*ACTIONS], key=key, icon=icon, type="tertiary"):
                st.dialog(f"{action} {plain(name)}")(_ask)(name, action)
        job_panel.show_job(root, brief=True)
        if result:
            st.markdown(result)
        if about:
            st.caption(about)


@st.cache_data(ttl=20, max_entries=256, show_spinner=False)
def _describe(root: Path, state: str) -> tuple[str, str, int, float]:
    """The result in a sentence, a description or an error, the size, and the last change, of a study in a state."""
    try:
        loaded = load_study(root.name)
        study = loaded.study
        metrics, result = loaded.metrics(study.evaluation_names()), ""
        if {"base", "default"} <= metrics.keys():
            result = headline({"base": metrics["base"]} | metrics, "default", None)[0]
        about = plain(study.config.description)
        if (last := latest_job(root)) and (problem := last.status().error):
            about = f"The last job stopped with an error: {sentence(problem)}"
    except IFGuideError as error:
        result, about = "", sentence(str(error))
    return plain(result), about, *measure(root)


def _ask(name: str, action: str) -> None:
    """Ask for the new name; to delete a study, ask to type its name."""
    note, give_name = ACTIONS[action]
    st.markdown(note)
    label = "New name" if give_name else f"To delete it, type its name: {plain(name)}"
    typed = st.text_input(label, key=f"{action}_{name}", live=True).strip()
    ready = typed if give_name else typed == name
    if st.button(action, type="primary", key=f"do_{action}", disabled=not ready):
        with layout.guard(go_on=True):
            if give_name:
                give_name(name, typed)
                st.session_state["open_study"] = typed
            else:
                delete_study(name)
            st.query_params.pop("study", None)  # it may name a study that is gone
            _describe.clear()
            st.rerun()
