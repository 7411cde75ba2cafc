"""Search by meaning: the models' process reads the text, and the list shows the documents that are nearest to it."""

import streamlit as st

from ifguide.config.names import BASE
from ifguide.study.analysis.document_map import STATES, rank_meant, read_map
from ifguide.study.stages.evaluating import missing_weights
from ifguide.ui import job_panel, layout
from ifguide.ui.format import count, count_of, sentence
from ifguide.ui.loaders import Loaded, remembered
from ifguide.ui.models_process import ENDED, POLL_SECONDS, ask, explain_failure, read

HINTS = {"words": ("word or phrase", 220), "meaning": ("a phrase or sentence", 260)}
"""What a search compares -> what its empty box says, and the box's width in pixels."""


def search_box() -> tuple[str, bool]:
    """The text to search for, and whether by meaning. A new text by meaning, unless it is a link's, ends a likeness to
    a document; so this comes before the other filters."""
    way = layout.switch("Search by", {way: way.title() for way in HINTS}, key="search_by", default="words")
    text = layout.search_box("Text contains", key="search", placeholder=HINTS[way][0], width=HINTS[way][1])
    meant = text.strip() if way == "meaning" else ""
    if meant and st.session_state.get("meant_text", meant) != meant:
        st.session_state.update(like="", meant_anew=True)
        sort_nearest_first()
    st.session_state["meant_text"] = meant
    return meant or text, way == "meaning"


def sort_nearest_first() -> None:
    """Forget how the list was sorted, so that it is by likeness."""
    st.session_state.pop("reader_sort", None)
    layout.set_parameter("sort", "")
    layout.set_parameter("falling", "")


def find_meant(loaded: Loaded, text: str) -> tuple[int, ...]:
    """All documents, the nearest in meaning first; none until the models' process has read the text, or where it
    cannot, which `show_progress` then tells."""
    asked, of = st.session_state.get("meant", {}), [*loaded.key, text]
    if asked and asked["of"] != of:
        if asked["state"] not in ENDED:
            read(asked, cancel=True)
        asked = st.session_state["meant"] = {}
    if not asked and not missing_weights(loaded.study, BASE) and read_map(loaded.study, STATES) is not None:
        asked = st.session_state["meant"] = {"of": of, "new": True} | ask(loaded, models=[], meaning=text)
    if asked.get("state") != "done":
        return ()
    if asked.pop("new", False):  # the list starts at its first document, or at a link's
        st.session_state.pop("doc", None)
        if st.session_state.pop("meant_anew", False):
            st.query_params.pop("doc", None)
    return _rank(loaded, tuple(asked["figures"]["direction"]))


@remembered(4)
def _rank(loaded: Loaded, direction: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(rank_meant(loaded.study, direction).tolist())


@st.fragment(run_every=POLL_SECONDS)
def _follow(asked: dict) -> None:
    if asked["state"] not in ENDED:
        read(asked)
    if asked["state"] in ENDED:
        st.rerun()
    waiting = f"Waiting for {count_of(asked['ahead'], 'request')} before this one" if asked["ahead"] else "Starting"
    doing = waiting if asked["state"] == "waiting" else "Loading the base model"
    st.caption(f":material/hourglass_empty: {doing}… Then the list shows the documents nearest in meaning.")


def show_progress(loaded: Loaded) -> None:
    """Why the list is not by meaning yet, and what the reader can do."""
    asked = st.session_state.get("meant", {})
    if reason := missing_weights(loaded.study, BASE):
        st.caption(f"No search by meaning: {sentence(reason)}. The list shows all documents.")
    elif not asked:
        offer_map(loaded, "A search by meaning compares what the map of documents keeps")
    elif asked["state"] in ENDED:
        st.error(explain_failure(asked["message"] or "the search was stopped"), icon=":material/error:")
        layout.button("Search again", "search_again", "replay", st.session_state.update, {"meant": {}})
    else:
        _follow(asked)


def offer_map(loaded: Loaded, why: str) -> None:
    """Offer to draw the map, without which the list shows all documents."""
    note = f"{why}; until it is drawn, the list shows all documents. Drawing it takes the base model one pass over"
    job_panel.offer_map(loaded.study.root, f"{note} {count(loaded.corpus().n_tokens)} tokens, once.")
