"""One study on the Studies page: what is known of it at a glance, and what can be done with it as a whole."""

from pathlib import Path

import streamlit as st

from ifguide.errors import IFGuideError
from ifguide.runtime.jobs import Job, active_job, latest_job
from ifguide.study.folder import cache_dir
from ifguide.study.planning.plan import size
from ifguide.study.shelf import delete_study, duplicate_study, measure, rename_study
from ifguide.ui import frame, layout
from ifguide.ui.format import ago, plain, sentence
from ifguide.ui.job_panel import progress_line, share_done
from ifguide.ui.loaders import load_study
from ifguide.ui.results.tables import headline

BROKEN = ("Cannot be opened", ":material/error:")
ACTIONS = {
    "Duplicate": ("The copy gets its settings and inputs, not its results: run it to get its own.", duplicate_study),
    "Rename": ("Links to the old name that were shared before will not find it any more.", rename_study),
    "Delete": ("It and all its results will be removed from this machine. This cannot be undone.", None),
}
"""In the card's menu -> what to know first, and what gives the study another name."""


def show_card(name: str) -> None:
    """Its state, result, size and last change, with its buttons."""
    root = cache_dir() / name
    state, result, about, n_bytes, changed = _describe(root)
    job = active_job(root)
    with st.container(border=True, key=f"study_{name}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{plain(name)}**", width="content")
            st.caption("{1} {0}".format(*frame.STATES["running"] if job else state), width="content")
            st.space("stretch")
            st.caption(f"{size(n_bytes)} · changed {ago(changed)}", width="content")
            if st.button("Open", key=f"open_{name}", disabled=state == BROKEN):
                layout.open_study(name)
            look: dict = {"key": f"menu_{name}", "icon": ":material/more_vert:", "type": "tertiary"}
            if action := st.menu_button("More", [*ACTIONS], help="Duplicate, rename or delete", **look):
                st.dialog(f"{action} {plain(name)}")(_ask)(name, action)
        if job:
            st.fragment(_follow, run_every=2.0)(job)
        if result:
            st.markdown(result)
        if about:
            st.caption(about)


def _follow(job: Job) -> None:
    status = job.status()
    if not status.running:
        st.rerun()
    st.progress(share_done(status), text=progress_line(status).capitalize())


@st.cache_data(ttl=20, max_entries=256, show_spinner=False)
def _describe(root: Path) -> tuple[tuple[str, str], str, str, int, float]:
    """State with its icon, the result in a sentence, what it is or what went wrong, its size, and its last change."""
    try:
        loaded = load_study(root.name)
        study = loaded.study
        metrics = {model: values for model in study.evaluation_names() if (values := study.metrics(model))}
        known = {"base", "default"} <= metrics.keys()
        result = headline({"base": metrics["base"]} | metrics, "default", None)[0] if known else ""
        state, about = frame.STATES[frame.state_at_rest(root.name, loaded)], plain(study.config.description)
        if (last := latest_job(root)) and (problem := last.status().error):
            about = f"The last job stopped with an error: {sentence(problem)}"
    except IFGuideError as error:
        state, result, about = BROKEN, "", sentence(str(error))
    return state, plain(result), about, *measure(root)


def _ask(name: str, action: str) -> None:
    """Ask for the new name, or to delete a study, for its own name again."""
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
            st.query_params.pop("study", None)  # which may name what is gone
            _describe.clear()
            st.rerun()
